// Package nodenet is the component node-network: everything of a node's network, in one process beside the kubelet.
//
//   - kube-proxy, upstream's, in nftables mode: Services.
//   - package policy: NetworkPolicy by rules of our own, and the gate that pods wait at until their rules stand.
//   - package routes: the node's and its pods' ways to other nodes and to the outside, and the CNI configuration.
//   - package tunnel: the control plane's way in.
//
// They are one process for memory: one runtime and one text, instead of two with kube-proxy. If one part ends, all do,
// with status 1; whoever started the process starts it again. What they wrote into the kernel stays and serves
// meanwhile.
//
// The order of a start is the node's safety: the rules stand first, then the CNI configuration is written, which makes
// the node ready for pods, then the file node-network.ready.
package nodenet
