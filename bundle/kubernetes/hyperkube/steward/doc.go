// Package steward is Marina's agent inside a hosted cluster. It runs in the cluster's control-plane process, with
// client-go of the cluster's own version, so that no Marina has to know the API of every Kubernetes version it hosts.
//
// The datacenter and the steward exchange two documents over one listener (see api.go). Status describes the cluster:
// the steward makes it from watches, and its revision is a digest of its content, so that revisions mean the same after
// a restart. Desired tells the datacenter's decisions: it replaces what was desired before, is durable before it is
// acknowledged, and is gone on with after a restart without anybody asking.
//
// # What it does
//
//   - Add-ons (addons.go): applies the manifests of the add-ons bundle, again every few minutes, and removes objects that
//     an earlier version of the bundle had. It waits for nothing that it applied.
//   - Nodes (nodes.go): Node objects node-1, node-2 and so on that are not desired are cordoned, drained for a bounded time
//     and deleted. A node has to be desired before its kubelet first starts. As long as nothing was desired, nothing is removed.
//   - Services of type LoadBalancer (balancers.go): reported with their node ports; their status is what is desired.
//   - Volumes (volumes.go): claims of a class with provisioner marina.io/local get a directory on the node that the
//     scheduler selected.
//   - Egress (egress.go): connections of the API server into the cluster go through a node's tunnel (tunnel.go), those to
//     a node directly, and to nothing else but what the configuration names: a webhook cannot make the API server a
//     client of the datacenter, by Service or by URL.
//   - Probe (probe.go): one pod, once in the life of a cluster, that shows that pods run.
//
// # Who owns what
//
// Stores (watch.go) are written by their reflectors and read by everybody; what they hold is trimmed and never changed.
// Desired and whether the probe is done are in state (state.go), the current status in board (api.go); each has its own
// mutex. Every job is a loop (run.go) of its own that compares what is with what should be and is woken by a bell: jobs
// share nothing, and a failed round is tried again with growing pauses.
//
// # How it fails
//
// Everything that the cluster refuses is said in the status or in an event and tried again. Run returns an error only
// for what no repetition mends: a listener that cannot be had, files that cannot be read. It then ends the control
// plane like any component.
//
// # Memory
//
// It shares a process with a whole control plane that has a budget. One HTTP client stands behind all requests,
// protobuf where the API has it; watches are selected on the server (Services by type, EndpointSlices by name, volumes
// by label); of pods, nodes and claims a few fields are kept.
package steward
