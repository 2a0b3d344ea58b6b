// Package hyperkube is the one program of a Kubernetes minor: unmodified upstream components behind one name, so that
// every process of every cluster of that minor executes the same file and its text is in memory once. Directories
// v1.36, v1.37 and so on hold a module each that pins the upstream version and calls Main.
//
//	kubernetes COMPONENT [flags]
//
// A component is kube-apiserver, kube-controller-manager, kube-scheduler, etcd, kubelet, kube-proxy or kubectl, each
// exactly as upstream starts it, or control-plane, which is ours: the first four in one process. A link to the program
// with a component's name works like the component.
//
// # The control plane
//
// One process is one replica of one cluster's control plane. Never several clusters in one process: feature gates,
// metrics and faults are the process's.
//
// What it is given. Certificates and keys are files in --pki-dir, named as kubeadm names them; it makes none and needs
// no certificate authority's key but the one that signs requests inside the cluster (ca.key, left out: nothing is
// signed):
//
//	ca.crt [ca.key]                           the cluster's authority; clients and kubelets are known by it
//	apiserver.crt, .key                       what the API server shows; must hold the DNS name "kubernetes"
//	apiserver-kubelet-client.crt, .key        who it is to kubelets; their certificates are verified by ca.crt
//	front-proxy-ca.crt, front-proxy-client.crt, .key   who it is to aggregated API servers
//	sa.pub, sa.key                            verify and sign service account tokens
//	controller-manager.crt, .key              system:kube-controller-manager
//	scheduler.crt, .key                       system:kube-scheduler
//	[steward.crt, .key]                       marina:steward, of group system:masters; server certificate of its API too
//
// Replacing a certificate means replacing its files, by rename: servers and clients read them again by themselves. Only
// sa.* and ca.key take a restart.
//
// What it keeps. --data-dir holds etcd and nothing else: copied after the process ended (or by etcd's own snapshot), it
// is the cluster. --run-dir holds what dies with the process: etcd's sockets, which only the process's user can open,
// so etcd needs neither port nor certificate, and kubeconfigs of the controller-manager and scheduler. Both directories
// are of mode 0700.
//
// With a steward, its state is the file steward.json beside --data-dir, and with --audit the log is the directory audit
// there: two more things that outlive the process, neither of them the cluster.
//
// What it says. Standard output gets one line, "ready https://ADDRESS:PORT v1.37.2", when /readyz of the API server
// answers ok and the controller-manager and scheduler have started; --ready-file, if given, is made with the same line
// at that moment, and is removed when the process starts and when it stops. Everything else goes to standard error.
//
// How it fails. A component that returns, whatever it says, ends the process at once: exit status 1 and a last line on
// standard error, "control-plane: kube-scheduler: REASON". Nothing is restarted inside, and nothing is stopped first:
// what was acknowledged etcd has synced. A panic in a component ends it the same way with Go's status 2. SIGTERM and
// SIGINT stop it: first scheduler and controller-manager, then the API server, then etcd, since an API server drains
// for up to a minute while its own controllers still watch. Each has its share of --stop-within (15 s); whoever takes
// longer is left behind. Exit status 0, also then. A second signal ends it at once.
//
// What it sets. Flags of upstream keep upstream's defaults, with the exceptions in components.go, written.go and
// etcd.go, each with its reason. Any flag of a component can be set, ours too, with --kube-apiserver-arg=--NAME=VALUE
// (also
// --kube-controller-manager-arg, --kube-scheduler-arg, --etcd-arg), and wins. Logging and feature gates are the process's:
// they are given to kube-apiserver and hold for all; logging flags given to another are refused.
//
// The steward. With --steward-config=FILE the process also runs what Marina does inside the cluster, see package
// steward, as one more component, started when the API server is ready. The API server then reaches kubelets, pods,
// aggregated APIs and webhooks, and whatever else it is told to ask, through the steward's proxy only, which knows the
// cluster and what the file allows besides. Where the file says that privileged pods are not to be had, Pod Security's
// baseline is enforced in every namespace, and no label lowers that. Without the flag nothing of this is there.
//
// Memory. --gogc (40) trades processor for memory, twice as much while there is little to do: see package governor,
// which also keeps the soft limit, --memory-limit, from ever coming near the live heap. Environment variables GOGC and
// GOMEMLIMIT are not read.
package hyperkube
