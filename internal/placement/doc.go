// Package placement decides which machine fits an instance and, when none does, says why in numbers.
//
// A [Pool] knows the machines of a datacenter and what is taken on each: resources, host ports, addresses, and how many
// instances of every owner. [Prepare] compiles a spec once into a [Request]; [Pool.Place] finds machines for k identical
// instances of it in one call and takes what they need. A machine passes filters in a fixed order (reachable, constraints,
// cpus, mem, disk, gpus, ports, address); of those that pass, one with the fewest instances of the same owner is chosen, and
// of these one of the freest: the freest of all when many instances are placed at once, one that is within 1/64 of it, in
// turn, when few are. When fewer than k could be placed, the Refusal counts the
// machines each filter turned down, with the nearest miss.
//
// # What counts for a constraint
//
// UNIQUE, MAX_PER, CLUSTER without a value and GROUP_BY look at the instances of the same framework, owner and version: a
// new version is spread by itself, or an update of an app that fills every machine could never begin. The ranking looks at all
// versions. A machine without the field passes UNLIKE only. GROUP_BY spreads over the values that machines have, so its number
// (how many values to expect) is not needed. Other operators hold for any instance alike.
//
// # Guarantees
//
// The package is pure: no clock, no I/O, no randomness, and nothing depends on the order of a map; the same calls in the same
// order give the same placements. No machine is ever given more than it has, nor a port or address twice (Place never does;
// Take, which repeats a decision made before, returns an error instead). An address given back is given out again last. A
// Pool is owned by one goroutine. The cost of a call does not depend on how many instances run: few instances come from an
// index of machines by how free they are, many from one pass over the machines' columns and a heap of those that fit.
package placement
