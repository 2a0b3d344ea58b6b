// Package timeline is what a simulation runs on: one heap of things to come ([Timeline]), the processes that they
// happen to ([Actor]), the only source of chance ([Dice]), and a hash of what happened ([Trace]). With these, a seed
// decides everything: things of one time happen in the order in which they were scheduled, and nothing else has a clock
// or draws.
package timeline
