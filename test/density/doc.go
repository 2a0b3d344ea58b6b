// Package density measures how many hosted clusters a machine takes and what each costs, and prints a table with the
// method beside each number. It judges nothing: a number beyond its budget is a line of the table. `make bench-density`
// runs it; docs/benchmarks.md keeps a printed run.
//
// It brings up a datacenter of its own and creates clusters one after another, each with one node and one pod, until
// all of them, idle, use more than half a core, or one does not come up, or there are as many as -clusters allows.
// Every number comes from the kernel: memory from smaps_rollup of every process (Pss_Anon is what nobody shares,
// Pss_File is a process's part of what others map too, so that sums count nothing twice), processor time from the
// tasks' cgroups. A process belongs to the cluster in whose task's cgroup it is, and is told apart by its command line.
//
// Beside it, in the same run and after the clusters are gone, the same program runs once as one process, without
// Marina's part, and once as upstream's four separate processes, with the same flags and the same collector setting.
package density
