// Package vip gives names addresses: each named VIP one of the datacenter's range, which it keeps for a while after
// its last use, and which is never one that somebody uses literally.
//
// A [Table] belongs to one goroutine and is memory only: it reports each name whose row changed to its owner, who
// writes it. Who holds a name (by Hold or HoldSpec) releases it once. [Views] sums up endpoints as readers are shown
// VIPs.
package vip
