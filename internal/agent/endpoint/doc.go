// Package endpoint keeps one machine's copy of the datacenter's endpoints, as the master tells it, corrected by what
// the machine knows better: a task of its own that ended, is unhealthy or about to stop gets no new connections from
// here from that moment on, with or without a master. The other way round the master's word counts.
//
// A [Table] has one mutex, and one goroutine (Run) that has the network follow it. A small table is on disk before the
// network follows, so that the next agent does not go back behind what clients have seen; a large one a little later. A
// network that fails is tried again for as long as it takes, and each of its errors is logged once.
package endpoint
