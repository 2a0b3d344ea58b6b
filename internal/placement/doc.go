// Package placement decides which machine fits an instance and, when none does, says why in numbers.
//
// A [Pool] keeps the machines of a datacenter and what is taken on each: resources, host ports, addresses, and how
// many instances of every owner. [Pool.Prepare] compiles a spec once into a [Request]; [Pool.Place] finds machines
// for k identical instances of it in one call and takes what they need. A machine passes filters in a fixed order
// (reachable, constraints, programs, reservation, cpus, mem, disk, gpus, ports, address); of those that pass, one
// with the fewest instances of the same owner is chosen, and of these the freest. When fewer than k could be placed,
// [Pool.Explain] counts the machines each filter turns down, with the nearest miss: it visits all of them, so it is
// called only when somebody asks.
//
// # How machines are found without visiting them
//
// Machines have numbers, and searches read columns indexed by them. Sixty-four machines make a block, sixty-four
// blocks the next, and so on; every block has the most that any machine in it has free of each resource
// ([aggregate]), and every [set] of machines has a bit for each block with a member. A search descends from the top
// through blocks that can contain a machine that is in every set, has enough, and is freer than the best so far. The
// sets come from:
//
//   - a [filter], a constraint on the machine alone: the machines that pass, kept up to date, shared by all specs that
//     have it;
//   - a [tally], a constraint that counts instances of the same version by the values of a [field]: while most values
//     take one more, candidates are checked one by one; when few do, the machines of each are searched by themselves;
//   - an [owner]: the machines by number of instances, once those are many.
//
// So a decision costs about the same on a thousand machines and on a hundred thousand. It costs more, up to a visit
// of every open machine that is freer than the one found, where machines do not fit for a reason that is in no set
// and no aggregate: host ports and addresses that are taken, resources of which each block has enough but no machine
// has all.
//
// # What counts for a constraint
//
// UNIQUE, MAX_PER, CLUSTER without a value and GROUP_BY count the instances of the same framework, owner and version:
// a new version is spread by itself, or an update of an app that fills every machine could never begin. The ranking
// counts all versions. A machine without the field passes UNLIKE only. GROUP_BY spreads over the values of open
// machines, so its number (how many values to expect) is not needed, and instances of a zone that is gone go to
// others. Other operators do not depend on other instances.
//
// # Guarantees
//
// The package is pure: no clock, no I/O, no randomness, and nothing depends on the order of a map; the same calls in
// the same order give the same placements. No machine is ever given more than it has, nor a port or address twice
// (Place never does; Take, which repeats a decision made before, returns an error instead). A released address is
// reused last. A Pool is owned by one goroutine.
package placement
