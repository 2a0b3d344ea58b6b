// Package kubernetes keeps hosted clusters: real, unmodified upstream Kubernetes, each with an API server, an etcd,
// certificates and nodes of its own, as tasks of the kernel. It is a scheduler like services: it writes intent, asks
// kernel.Kernel for instances, and never decides where they run.
//
// # What a cluster is made of
//
//	task  CLUSTER control-plane   one process: etcd, API server, controller-manager, scheduler, steward
//	task  CLUSTER node-N          containerd, kubelet, node-network, the pods
//
// Each has a reservation of its name (kernel.Reservation): machine, address and volume, and a control plane's host
// port, outlive the process, so that a control plane that comes back is the same one to its nodes and to everybody with
// a kubeconfig. What it runs are programs that Marina brings (bundles); all clusters of a minor execute the same file.
// The tasks of a cluster are in a network of its own.
//
// # How it fits together
//
//	API request ────┐                                             ┌─> store rows (fenced)
//	kernel watch ───┤                                             ├─> kernel: launch, stop ...
//	timer ──────────┼─> scheduler.Loop ─> core.State ─> Decide ───┼─> supply: images for nodes
//	stewards' words ┤    (the one owner)        (pure)            └─> steward: what is wanted
//	supply's words ─┘
//
// Parts: definition, what may be asked for; core, what is known and what follows, pure; steward, the connections to
// stewards; supply, which gives nodes images, and archive, which keeps those; pki, authorities and certificates; wire,
// what is said between Marina and the programs in clusters; and api, which serves all of it over HTTP. Here is what
// makes that durable and real:
//
//	run.go         New and Run; requests, and what others tell, come to the owner goroutine
//	guarded.go     the state under its lock, and what anybody may read of it
//	change.go, image.go, secret.go, request.go   what can be asked
//	observe.go     the kernel is heard and looked at
//	settle.go      a decision is carried out, cluster by cluster
//	actuate.go     the kernel's part of one
//	rows.go, keyring.go   what is stored
//
// # The steward
//
// Nothing here speaks Kubernetes' API. Inside every control plane works a steward
// (bundle/kubernetes/hyperkube/steward): it applies add-ons, removes nodes gracefully, answers for load balancers, and
// tells in one document how the cluster is. Package steward holds one long poll to each and sends it what is wanted,
// over TLS with the cluster's own authority on both sides.
//
// # Deciding
//
// A cluster's row, its reservations and instances, the steward's last word and the time go in, actions come out. There
// is no plan that is half done: whatever was interrupted, the next look at what is there says what is missing. What is
// wanted is in the row alone; what exists is the kernel's reservations and instances. A node that is too many is
// drained by the steward, stopped, and then its reservation released; a deleted cluster is stopped, its reservations
// released, and its rows go last, so that its name is free only when nothing is left of it.
//
// # Certificates and keys
//
// Each cluster has two authorities (its own and the front proxy's) and a key for service account tokens, made when it
// is created and kept sealed under the root key. Leaf certificates are made for a task when its agent asks for them
// (File.Secret), reach it in memory only, and are made anew when a third of their time is left; agents ask again and
// again, and programs read them again.
//
// # Who owns what
//
// The owner goroutine of package scheduler is the only writer of rows and of core.State. Requests are handed to it;
// readers get values of their own. It settles the clusters of which something changed, those whose time has come, and
// once a minute all of them. Each cluster whose control plane runs has a goroutine that follows its steward, and a node
// that lacks images one that gives them to it; both tell the owner.
//
// # How it fails
//
// A control plane or node that ends is started again where it was, at once and then with growing pauses. A steward
// that does not answer leaves the last word standing, marked as old; nothing is stopped because of silence.
//
// One cluster's trouble is its own. What the kernel or the store refuse, and a read that fails, is told in the
// cluster's view and events and tried again with growing pauses; nothing else waits for it. A cluster whose row
// cannot be read, or whose decision panics, is parked: what runs of it is left alone, its name stays taken, an alarm
// names it and the ways out, and it may be deleted.
//
// A write whose outcome is unknown, or that somebody else's leadership refuses, ends this leadership's work: memory
// may differ from what is durable, and the next leader begins from there.
package kubernetes
