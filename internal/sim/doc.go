// Package sim is the seeded simulator: a whole datacenter in one goroutine, without sockets, disks or clocks. Masters,
// agents, schedulers, the network and the store's faults are all driven by one heap of things to come and one source of
// chance, so that a seed decides everything that happens. It is for tests; nothing else imports it.
//
// # What is real and what is a stub
//
// Real: master's State (Step, Load, Ops) and services' State (Decide), each driven by a loop of this package that keeps
// to the order of their own loops; placement and allocator inside them; the in-memory store, whose commits are the
// linearization points; the frames of kernel.
//
//	user ──> services.Decide ─┐                 ┌── frames ──> agent (stub): disk, process, containers
//	user ──> count keeper ────┴> master.Step ───┤
//	                                  │         └── rows ────> store (memory): commits with faults
//	judge <── ground truth, revisions, news, applied frames ───┘
//
// Stubs: package sim/machine has the machines and their connections, which keep to the contract of kernel's Down and
// Up. The count keeper is the simplest scheduler there can be; it shows that the kernel alone is right, beside services,
// whose deployments, backoffs and strategies ask more of it.
//
// # What can happen
//
// Agents' processes die and return, machines die with all that runs on them and return with another boot, address or
// size, or never; either may be paused or cut off, one or half of them at once. Frames are lost, doubled, delayed and
// overtake each other. Leaders die, or are paused past their lease and resume as zombies while another leads. Commits
// are slow, conflict, or leave their outcome unknown, applied or not. Tasks end by themselves, fail their checks, find
// a host port taken. Meanwhile people launch, scale, update and remove apps, force deployments over each other, and
// change quotas. Each seed draws a climate first: which of this it knows, and how often. After a number of events
// everything heals, except for machines that are gone, and the datacenter has a bounded time to become what was asked
// for.
//
// # Judging
//
// The judge sees every revision of the store, every container that comes to be or ends, every frame that an agent
// applies and all news of the newest leader, and asks package invariant about each at once. It never believes a master:
// what runs is counted on the machines. [Config.Some] counts rare paths, and a batch that misses one fails: see
// sim/rare.
//
// # Planted bugs
//
// A simulator that finds nothing may be blind. Package sim/bug lists mistakes that the wiring between the rooms can
// make on purpose; testdata/planted keeps for each a seed that shows it, with the end of its trace, and the test asserts
// which invariant finds it.
//
// # Replaying
//
//	go test ./internal/sim -run TestSeed -seed=N -v             the trace of a seed
//	go test ./internal/sim -run TestSeed -seed=N -plant=B -v    with a planted bug
//	go test ./internal/sim -run TestSeeds -seeds=100000         a long hunt
//	go test ./internal/sim -run TestPlanted -update             write testdata/planted anew
//
// A seed means something only together with the code it ran on: a change of master, services or this package moves what
// happens in it. What a seed found is therefore kept as a transcript of the room at fault, not as a seed.
package sim
