// Package soak creates and deletes hosted clusters again and again, each with a node and a pod, and then compares what
// is on the machine with what was there before: `make soak`, ROUNDS times (100 unless told otherwise), SEVERAL at a
// time.
//
// Before is after one cluster came and went, so that what the first one brings for all counts as there. Processes,
// mounts, namespaces, links, routes, cgroups, firewall elements, loop devices and open descriptors must be as many as
// before; files and memory are told, since logs and databases may grow, with the names of what is new.
//
// While the first cluster stands, more of each must be there: otherwise the search would not find what stays either.
//
// Everything is read from the kernel and belongs to the datacenter by its id, its state directory or its cgroups:
// others on the machine do not count, but for MemAvailable, which is the machine's.
package soak
