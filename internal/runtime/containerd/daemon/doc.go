// Package daemon keeps containerd itself: the process, its configuration and what it leaves behind.
//
// [Daemon] is the containerd of one datacenter, a private one or somebody else's (Config.External, which is only asked
// for its version). A private one runs in a session of its own and outlives whoever started it: it is found by its
// command line, which names the configuration file, and adopted when its version and configuration are ours, else
// replaced. One that ends is started again, with growing pauses if it keeps ending. Only Stop ends it for good.
//
// Programs with known ways out of a container are refused by New.
package daemon
