// Package placement decides which machine fits an instance and, when none does, says why in numbers.
//
// A [Pool] knows the machines of a datacenter and what is taken on each: resources, host ports, addresses, and how many
// instances of every owner. [Pool.Prepare] compiles a spec once into a [Request]; [Pool.Place] finds machines for k identical
// instances of it in one call and takes what they need. A machine passes filters in a fixed order (reachable, constraints,
// programs, reservation, cpus, mem, disk, gpus, ports, address); of those that pass, one with the fewest instances of the same owner is chosen,
// and of these the freest. When fewer than k could be placed, [Pool.Explain] counts the machines each filter turns down, with the
// nearest miss: it looks at all of them, so it is left to when somebody asks.
//
// # How machines are found without looking at them
//
// Machines have numbers, and what a search asks of them is in columns. Sixty-four machines make a block, sixty-four blocks the
// next, and so on; every block has the most that any machine in it has free of each resource ([sum]), and every [set] of machines
// has a bit for each block with a member. A search goes down from the top, through blocks that can hold a machine that is in every
// set, has enough, and is freer than what was found. What decides which sets:
//
//   - a [filter], a constraint that looks at the machine alone: those that pass, kept up to date, shared by all specs that have it;
//   - a [tally], a constraint that counts instances of the same version by the values of a [field]: while most values take one
//     more, machines found are asked one by one; when few do, each of their sets is searched by itself;
//   - an [owner]: the machines by how many instances they have, once those are many.
//
// A decision so costs about the same on a thousand machines and on a hundred thousand. It costs more, up to a look at every open machine
// that is freer than the one found, where what makes machines unfit is in no set and no sum: host ports and addresses that are taken,
// resources of which each block has enough but no machine has all.
//
// # What counts for a constraint
//
// UNIQUE, MAX_PER, CLUSTER without a value and GROUP_BY look at the instances of the same framework, owner and version: a
// new version is spread by itself, or an update of an app that fills every machine could never begin. The ranking looks at all
// versions. A machine without the field passes UNLIKE only. GROUP_BY spreads over the values that machines have which may be given instances,
// so its number (how many values to expect) is not needed, and what ran in a zone that is gone goes to others. Other operators hold for any instance alike.
//
// # Guarantees
//
// The package is pure: no clock, no I/O, no randomness, and nothing depends on the order of a map; the same calls in the same
// order give the same placements. No machine is ever given more than it has, nor a port or address twice (Place never does;
// Take, which repeats a decision made before, returns an error instead). An address given back is given out again last. A
// Pool is owned by one goroutine.
package placement
