package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
)

// Desired tells a steward the decisions of the datacenter: PUT /v1/desired.
type Desired struct {
	// Rev names the rest; the status repeats it once it is kept.
	Rev string `json:"rev"`
	// Nodes are the names of all nodes the cluster has. Node objects of other names are drained and deleted. Left
	// out: none is.
	Nodes []string `json:"nodes"`
	// LoadBalancers are all that have an address. Services without lose theirs. Left out: nothing is changed.
	LoadBalancers []Balancer `json:"loadBalancers"`
}

// Balancer tells the addresses of one Service of type LoadBalancer.
type Balancer struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Ingress   []netip.Addr      `json:"ingress"`             // its addresses
	Published map[string]string `json:"published,omitempty"` // port to HOST:PORT where the world outside reaches it
}

// Revision is a name for all of it but Rev.
func (d *Desired) Revision() string {
	plain := *d
	plain.Rev = ""
	raw, err := json.Marshal(plain)
	if err != nil {
		panic(err) // this cannot be: plain data
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}
