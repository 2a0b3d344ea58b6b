// Package api serves Marathon's API version 2 for services.
//
// It reads what was asked, hands it to services, and says the answer in Marathon's words: it is the only place that
// knows paths, parameters and status codes. What it answers with are values of its own (see services/read.go), so
// that a client may take its answer as slowly as it likes: no handler has a lock or a writer, and an answer is
// written when its handler has returned.
//
// Routes are read from the path as it was sent: app ids hold slashes, clients double them, and a redirect would turn
// a PUT into a GET. Until the state is loaded, and after the leadership has ended, everything but /ping answers 503.
package api
