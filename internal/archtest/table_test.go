package archtest

// table has a line for every package below internal/. doc.go says what the kinds are, with examples. Keep each
// room's packages together and a blank line between rooms: people change different rooms at the same time.
var table = map[string]entry{
	"kernel":            room("").pure(),
	"kernel/kerneltest": suite("kernel"),

	"durable": room(""),

	"settings": room(""),

	"disk": room(""),

	"machine": room("durable kernel"),

	"store":           room("").pure(),
	"store/etcd":      implementation("durable store"),
	"store/memory":    implementation("store"),
	"store/storetest": suite("store"),
	"store/upkeep":    implementation("kernel metrics store"),

	"allocator": room("kernel").pure(),

	"placement": room("kernel").pure(),

	"invariant": room("kernel").pure(),

	"access": room(""),

	"audit": room("kernel"),

	"metrics": room(""),

	"identity":    room("access audit durable store"),
	"identity/ca": implementation("identity store"),

	"images": room("access disk store"),

	"network":     room("durable kernel machine"),
	"network/dns": implementation("kernel network"),
	"network/vip": implementation("network"),

	"runtime": room("kernel"),
	"runtime/containerd": implementation("kernel machine runtime runtime/containerd/cgroup runtime/containerd/daemon " +
		"runtime/containerd/image runtime/containerd/spec runtime/containerd/storage"),
	"runtime/containerd/cgroup":  part("runtime"),
	"runtime/containerd/daemon":  part("machine"),
	"runtime/containerd/image":   part(""),
	"runtime/containerd/spec":    part("kernel runtime runtime/containerd/cgroup"),
	"runtime/containerd/storage": part("durable runtime"),
	"runtime/process":            implementation("durable kernel machine runtime"),
	"runtime/runtimetest":        suite("runtime"),

	"agent": room("agent/api agent/check agent/checkpoint agent/endpoint agent/locks agent/measure agent/naming agent/node agent/retry " +
		"agent/sandbox agent/secret agent/session agent/volume kernel machine metrics runtime"),
	"agent/api":        part("agent/naming agent/retry agent/sandbox kernel machine metrics runtime"),
	"agent/check":      part("agent/locks agent/retry kernel runtime"),
	"agent/checkpoint": part("durable"),
	"agent/endpoint":   part("agent/checkpoint agent/retry kernel"),
	"agent/locks":      part(""),
	"agent/measure":    part("metrics"),
	"agent/naming":     part("kernel"),
	"agent/node":       part("durable kernel runtime"),
	"agent/retry":      part(""),
	"agent/sandbox":    part("agent/locks kernel"),
	"agent/secret":     part("agent/locks agent/naming agent/retry durable kernel runtime"),
	"agent/session":    part("agent/retry kernel metrics"),
	"agent/volume":     part("agent/locks agent/naming agent/retry durable kernel runtime"),

	"master": room("access kernel master/core master/event master/row master/subnet master/vip metrics store"),
	"master/core": part("allocator invariant kernel master/ended master/endpoint master/event master/expose master/interner " +
		"master/queue master/removed master/reservation master/row master/spec master/subnet master/vip placement store").pure().For("sim"),
	"master/ended":       part("kernel").pure(),
	"master/endpoint":    part("kernel").pure(),
	"master/event":       part("kernel").pure().For("sim"),
	"master/expose":      part("kernel master/vip").pure(),
	"master/interner":    part("kernel").pure(),
	"master/queue":       part("allocator kernel master/spec placement").pure(),
	"master/removed":     part("kernel master/event master/row").pure(),
	"master/reservation": part("kernel placement").pure(),
	"master/row":         part("kernel store").pure().For("sim"),
	"master/spec":        part("allocator kernel master/expose master/vip placement store").pure(),
	"master/subnet":      part("kernel").pure(),
	"master/vip":         part("kernel").pure(),

	"scheduler": room("kernel metrics store"),

	"marathon": room("kernel").pure(),

	"services":      room("kernel marathon metrics scheduler services/core store"),
	"services/api":  implementation("access kernel marathon scheduler services services/core"),
	"services/core": part("kernel marathon").pure().For("sim"),

	"kubernetes": room("identity kernel kubernetes/archive kubernetes/core kubernetes/definition kubernetes/pki " +
		"kubernetes/steward kubernetes/supply metrics scheduler store"),
	"kubernetes/api":        implementation("access kubernetes scheduler store"),
	"kubernetes/archive":    part("disk durable"),
	"kubernetes/core":       part("kernel kubernetes/definition kubernetes/wire").pure(),
	"kubernetes/definition": part("kernel").pure(),
	"kubernetes/pki":        part("identity"),
	"kubernetes/steward":    part("kubernetes/pki kubernetes/wire scheduler"),
	"kubernetes/supply":     part("kernel kubernetes/archive kubernetes/core scheduler"),
	"kubernetes/wire":       part("").pure().onlyStandard(),

	"gateway": room("access audit identity metrics"),

	"cli": room("cli/app cli/audit cli/client cli/cluster cli/command cli/datacenter cli/deployment cli/exit cli/image cli/machine " +
		"cli/output cli/quota cli/task cli/token settings"),
	"cli/exit":       part(""),
	"cli/output":     part("cli/exit kernel"),
	"cli/client":     part("cli/exit durable"),
	"cli/command":    part("cli/client cli/exit cli/output"),
	"cli/kubeconfig": part("cli/exit durable"),
	"cli/resources":  part("cli/exit kernel"),
	"cli/marathon":   part("cli/client cli/command cli/exit cli/output"),
	"cli/kube":       part("cli/client cli/command cli/exit kubernetes"),
	"cli/app":        part("cli/client cli/command cli/exit cli/marathon cli/output"),
	"cli/audit":      part("audit cli/command cli/output"),
	"cli/cluster":    part("cli/client cli/command cli/exit cli/kube cli/kubeconfig cli/output kubernetes"),
	"cli/datacenter": part("cli/client cli/command cli/exit cli/marathon cli/output durable kernel settings"),
	"cli/deployment": part("cli/command cli/marathon"),
	"cli/image":      part("cli/client cli/command cli/exit cli/kube cli/output kernel"),
	"cli/machine":    part("cli/client cli/command cli/exit cli/output cli/resources kernel"),
	"cli/quota":      part("cli/client cli/command cli/exit cli/output cli/resources kernel"),
	"cli/task":       part("cli/client cli/command cli/exit cli/marathon cli/output kernel"),
	"cli/token":      part("cli/client cli/command cli/output"),
	"cli/clitest":    suite("cli kernel"),

	"daemon": wiring("access agent audit daemon/heap durable gateway identity identity/ca images kernel kubernetes " +
		"kubernetes/api machine master metrics network network/dns network/vip runtime/containerd services services/api " +
		"settings store store/etcd store/upkeep"),
	"daemon/heap": part(""),

	"sim": wiring("invariant kernel marathon master/core master/event master/row services/core sim/bug sim/machine " +
		"sim/rare sim/timeline store store/memory"),
	"sim/bug":      part("").pure(),
	"sim/machine":  part("invariant kernel sim/bug sim/rare sim/timeline"),
	"sim/rare":     part("invariant").pure(),
	"sim/timeline": part(""),

	"archtest":        room(""),
	"archtest/survey": program("archtest"),
}

// outside says what the rest of the product imports of internal/, tests and benchmarks aside.
var outside = map[string]string{
	"bundle":   "kubernetes/wire",
	"cmd":      "cli daemon",
	"examples": "",
}

// kept names outside libraries and the packages that alone may import them, with what is below those.
var kept = map[string]string{
	"github.com/containerd/containerd/":       "runtime/containerd",
	"github.com/containernetworking/":         "network",
	"github.com/golang-jwt/":                  "identity",
	"github.com/google/go-containerregistry/": "images",
	"github.com/google/nftables":              "network",
	"github.com/mdlayher/netlink":             "network",
	"github.com/miekg/dns":                    "network/dns",
	"github.com/opencontainers/runtime-spec/": "runtime/containerd",
	"github.com/prometheus/":                  "metrics",
	"github.com/spf13/":                       "cli",
	"github.com/vishvananda/":                 "network",
	"go.etcd.io/":                             "store/etcd",
	"go.uber.org/zap":                         "store/etcd",
	"go.yaml.in/yaml/":                        "cli",
}

// impure is what no deciding code imports, with all that lies below; spared is what of it does no harm.
var (
	impure = []string{
		"crypto/rand", "log", "math/rand", "net", "os", "plugin", "runtime", "syscall", "testing", "golang.org/x/sys",
	}
	spared = []string{"net/netip", "net/url"}
)

// pureFiles are the files of every package that are held to purity.
var pureFiles = []string{"decide.go", "step.go"}

// emptyNames are not nouns of this field.
var emptyNames = []string{"base", "common", "helper", "helpers", "misc", "types", "util", "utils"}
