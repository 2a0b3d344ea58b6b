package core

import "time"

// Standing says where a cluster stands.
type Standing string

// Where a cluster may stand.
const (
	Creating Standing = "creating" // it was never ready
	Ready    Standing = "ready"    // its API answers, all nodes are ready, add-ons are applied, names resolve
	Changing Standing = "changing" // it was ready; nodes come, go or change their size
	Degraded Standing = "degraded" // it was ready and something of it is not, see WaitsFor
	Deleting Standing = "deleting" // it is being taken apart
	Parked   Standing = "parked"   // it is set aside, see WaitsFor: what runs of it is left alone
)

// View is a cluster as the API shows it.
type View struct {
	Definition
	ID       string     `json:"id"`      // of this cluster, also among later ones of its name
	State    Standing   `json:"state"`   //
	Release  string     `json:"release"` // "v1.37.2"
	Created  time.Time  `json:"created"`
	ReadyAt  time.Time  `json:"readyAt,omitzero"`        // when it was first ready
	Server   string     `json:"server,omitempty"`        // API address for other computers: "https://192.0.2.1:31004"
	Internal string     `json:"internal,omitempty"`      // the same for tasks of the datacenter's machines
	WaitsFor []string   `json:"waitsFor,omitempty"`      // what is missing until it is ready, and why, in sentences
	Warnings []string   `json:"warnings,omitempty"`      // what its owner should know
	Members  []Member   `json:"members"`                 // control plane first
	Pods     Pods       `json:"pods"`                    // as of the steward's last word
	Balanced []Balanced `json:"loadBalancers,omitempty"` // Services of type LoadBalancer
	Images   []string   `json:"images,omitempty"`        // loaded into it by name
	Cost     *Cost      `json:"cost,omitempty"`          // with ?cost=true: of all members together
}

// Member is the control plane or a node.
type Member struct {
	Name     string    `json:"name"`  // "control-plane", "node-1"
	State    string    `json:"state"` // "ready", "starting", "waiting", "leaving", "down", "parked"
	Message  string    `json:"message,omitempty"`
	Task     string    `json:"task,omitempty"`    // the kernel's, while there is one
	Machine  string    `json:"machine,omitempty"` // hostname
	Address  string    `json:"address,omitempty"`
	Since    time.Time `json:"since,omitzero"`     // of its process
	Restarts int       `json:"restarts,omitempty"` // under this leader
	CPUs     float64   `json:"cpus"`
	Mem      float64   `json:"mem"`  // MiB
	Disk     float64   `json:"disk"` // MiB
	Pods     int       `json:"pods,omitempty"`
	Cost     *Cost     `json:"cost,omitempty"`
}

// Cost says what something uses.
type Cost struct {
	Private float64 `json:"privateMiB"` // memory nobody shares, MiB
	Shared  float64 `json:"sharedMiB"`  // its part of memory that others use too (program text), MiB
	CPU     float64 `json:"cpus"`       // cores, over the last look
}

// Pods counts pods by phase.
type Pods struct {
	Running int `json:"running"`
	Pending int `json:"pending"`
	Failed  int `json:"failed"`
}

// Balanced is a Service of type LoadBalancer and where it is reached.
type Balanced struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Address   string   `json:"address,omitempty"`   // its VIP, from tasks and from machines that route there
	DNS       string   `json:"dns,omitempty"`       // its name in the datacenter
	Published []string `json:"published,omitempty"` // "192.0.2.1:80": on the machines' own addresses, from anywhere
	Message   string   `json:"message,omitempty"`   // why a port is not published
}

// Event is something that happened to a cluster. Events are kept in the leader's memory, the newest MaxEvents of each
// cluster.
type Event struct {
	Time    time.Time `json:"time"`
	Cluster string    `json:"cluster"`
	Message string    `json:"message"`
}

// MaxEvents bounds the events of a cluster that are kept.
const MaxEvents = 500
