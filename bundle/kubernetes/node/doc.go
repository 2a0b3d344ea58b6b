// Marina-node is the first process of a node of a hosted cluster: a container that looks like a machine to Kubernetes.
//
//	marina-node CONFIG    runs the node that the file CONFIG describes, see Config
//	marina-node check     says whether the node works: prints Ready and exits 0, or prints why not and exits 1
//
// It prepares the container (directories, shared mounts), writes configuration for containerd, the kubelet and the
// node's network, and keeps three programs running:
//
//	containerd    of the bundle "runtime"; first
//	kubelet       of the bundle of the cluster's minor; once the API server listens
//	node-network  of the same program: kube-proxy, routes, policies, the tunnel of the control plane; once the add-ons' images
//	              are imported, since the node is Ready with it
//
// A program that ends is started again, after 0.2 s at first and at most 10 s. Containers do not depend on any of
// them: shims hold the pods, and a containerd or kubelet that comes back adopts what it finds.
//
// # What it reads
//
// CONFIG never changes. What may change is looked at every 2 s, since a watch would cost one of the machine's few
// inotify instances for each node: the node's size (sizeFile; the kubelet is started again with what follows from it)
// and the certificates (pkiDir; kubelet and node-network are started again once a replacement is complete, that is,
// unchanged for one look). Pods go on through both.
//
// # What it writes
//
// Everything it generates is below runDir, which is gone with the container: containerd.toml, registries/,
// kubelet.json, kubelet.kubeconfig, proxy.kubeconfig, nodenet.kubeconfig. The node's network configuration is expected
// in cniDir, since /etc is read-only; node-network writes it, containerd reads it. State is below /var: what is there
// when the node starts again is used, so images are imported once.
//
// # How it stops
//
// On TERM, within 5 s: kubelet and node-network are told to end, then everything else in the container is, pods
// included, then what is left is killed. Pods that must be drained are drained before by whoever stops the node.
//
// # Memory
//
// It has nothing but the standard library and stays at 2 to 3 MiB of private memory: there is one in every node.
package main
