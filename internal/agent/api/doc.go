// Package api is what an agent serves its master beside the session, for users: the output and files of tasks, also of
// those that ended while their sandboxes are kept, processes in them, and what they use. It is the only place of the
// agent that knows status codes. An error of no kind that a client could act on is logged and not told: masters hand
// answers on.
package api
