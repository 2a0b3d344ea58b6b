// Package api serves /kubernetes/v1 for hosted clusters.
//
// It reads what was asked, asks access about the cluster that it is about, hands it to kubernetes.Clusters, and says
// the answer: it is the only place that knows paths, parameters and status codes. What it answers with are values of
// its own, made under the clusters' lock and written after it, so that a client may take its answer as slowly as it
// likes.
//
// A change goes on when its client is gone: whoever asks again sees what became of it. A stream (follow.go) tells a
// cluster at each change until it is gone, its client is, or the leadership ends. Until the state is loaded, and after
// the leadership has ended, everything answers 503.
package api
