// Package bench measures Marina and prints a table, beside the budgets of its design. It judges nothing: a number below
// its budget is a line of the table. `make bench` runs it; docs/benchmarks.md keeps a printed run.
//
// real_test.go measures real containers on this machine, and plain `ctr run` by the same containerd in the same run.
// fleet_test.go measures the real daemon, gateway and etcd with fsync, with a thousand stub agents over real
// connections; stubs and daemon share the machine's cores.
package bench
