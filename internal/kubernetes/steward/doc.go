// Package steward speaks with the stewards that work inside of control planes (bundle/kubernetes/hyperkube/steward),
// over TLS with the cluster's own authority on both sides.
//
// Followers has one goroutine for each control plane that runs: a long poll hears its steward's status, and what is
// wanted is told when it changes, and anew with each connection. A steward that does not answer is asked again and
// again; that it does not, and why, is heard like a word of it. Certificates are made for a connection, which is
// renewed before they end, and kept nowhere.
//
// The scheduler's owner goroutine calls Attend, End and Present; Hear is called by the followers. A word may be on its
// way while its follower is ended, since the control plane is another now: whoever takes words in asks Present.
package steward
