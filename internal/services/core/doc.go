// Package core is what services decides from and how: pure, so that a simulator and transcripts drive the same code.
//
//	what the kernel says ─> Observe ─┐
//	what was asked for ─> Begin ─────┼─> State ─> Decide ─> Decision: transitions, launches, stops ...
//	time, ids ───────────────────────┘      └───> views: apps, tasks, deployments, the queue
//
// [State] is what is known: apps and deployments as the store has them, instances as the kernel told, and what was
// asked of it since. [Decide] looks at the apps that changed or whose time has come, one after the other:
//
//	query.go, view.go   what is shown of the state
//	decide.go           what follows for each app, and which steps are done
//	rolling.go          one version takes the place of another, within its bounds
//	loss.go, health.go  what is on machines that do not answer; what fails its checks or does not come to run
//	brake.go            how much of both may go at once
//	census.go           what an app's instances count as, who of them ends, and who first
//	progress.go         deployments begin, come further and end
//	state.go            what the kernel says is taken in
//	goal.go             what an app should be at this moment
//	aside.go            what is set aside, since it cannot be read or something about it panicked
//	fleet.go, instance.go, deployment.go, dependency.go   the nouns: calls run down to here
//
// # Contracts
//
// The same state, time and ids give the same decision. A State belongs to one goroutine, or to whoever holds its
// lock; what it hands out as a pointer to an app, a step or a failure is never changed, so that it may be kept.
// Whoever drives it keeps the order that package services tells.
//
// Nothing here ends an instance, gives one up or calls a step done before the kernel's view is complete.
package core
