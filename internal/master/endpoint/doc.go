// Package endpoint keeps the datacenter's endpoints as far as agents have been told, and what changed since, as
// versions and the deltas between them.
//
// A [Log] belongs to one goroutine. What an endpoint is, its instance says when a delta is made; the log keeps only
// which tasks changed, and how each stands in the newest version ([Standings], a field of the instance). A [Reader] is
// an agent's session: it is told the deltas after the version that it holds, or all there is.
package endpoint
