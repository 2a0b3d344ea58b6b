package settings

// What holds where nothing was said.
const (
	State     = "/var/lib/marina"
	HTTPS     = ":8443"
	HTTP      = "127.0.0.1:8080"
	AgentPort = ":8444"
	Placement = "spread"

	StoreQuota = 4096 // MiB
)

// Off is the HTTP that listens nowhere.
const Off = "off"

// Datacenter holds the settings that a datacenter is started with. An empty field is its default, but for State.
type Datacenter struct {
	State      string   // directory of everything the datacenter keeps; required: the command line fills in State
	HTTPS      string   // listen address of the gateway; default HTTPS
	HTTP       string   // listen address of plain HTTP, loopback only; default HTTP; Off for none
	AgentPort  string   // listen address for agents; default AgentPort
	Runtime    string   // directory of containerd, runc and CNI plugins; default: bundle/runtime/bin beside the binary
	Advertise  string   // this machine's address for others; default: that of the default route
	Hostname   string   // this machine's name in the datacenter; default: the kernel's
	Pool       string   // container addresses; default: a /16 of 10.128.0.0/9 that is free at the first start
	VIPs       string   // virtual addresses; default: 198.18.0.0/16, beside another datacenter a /20 that is free
	Etcd       []string // endpoints of an external etcd; default: embedded
	EtcdCA     string   // PEM files for the external etcd
	EtcdCert   string
	EtcdKey    string
	StoreQuota int      // MiB that the embedded etcd may take; default StoreQuota
	HostVolume []string // directories of this machine that tasks may bind; default none
	Attribute  []string // name=value of this machine, for constraints
	Placement  string   // strategy for tasks that name none, "spread" or "binpack"; default Placement
	SharedIDs  bool     // run containers with this machine's own user ids, as where there are no user namespaces
	Verbose    bool     // log debug messages
}
