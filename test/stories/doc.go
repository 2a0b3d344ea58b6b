// Package stories proves what Marina promises on real containers: each test is named by what must hold, and is judged
// by what tasks, clients and the kernel saw (package testbed), not by Marina's own word.
//
// Stories that end processes of the datacenter have it for themselves and run first; the others share one, each with
// apps of its own, and run side by side. When all are done that datacenter is taken away, and whatever is left of it on
// the machine fails the run.
//
// Without root or the container runtime stories are skipped, and say so; with MARINA_REQUIRE_REAL that is a failure.
package stories
