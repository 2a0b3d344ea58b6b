// Package datacenter is the verbs over the datacenter itself: up, down, status and login, and the processes that up
// starts, daemon and agent.
//
// What has to run inside a datacenter's own processes comes in as Programs from main, so that the command line depends
// on none of it. A datacenter keeps the settings it was started with in its state directory, so that they need to be
// said once; flags and environment of a later command change single ones.
package datacenter
