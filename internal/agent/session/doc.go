// Package session is an agent's way to its masters: one connection at a time, tried in turn, on which the master asks
// for one session and for whatever else the agent serves (the roles of HTTP/2 are turned round: the agent dials and
// answers).
//
// A session has a reader and a writer, and ends with its connection. The writer sends the registration, then statuses
// as they come, and heartbeats; what waits to be sent is in an [Outbox], which is bounded: a master that is too far
// behind starts over. The reader applies frames in their order. A frame of an older leader than the agent has listened
// to (the highest epoch is durable before anything of it is done), a gap in the numbers, changes before the sync, or a
// frame that is none ends the session; the next begins with all that counts. What frames mean is the [Agent]'s
// business.
package session
