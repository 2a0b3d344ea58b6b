package kubernetes

import (
	"time"

	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/store"
)

// Row is a cluster as the store has it.
type Row struct {
	Definition
	ID      string    `json:"id"`  // drawn when it was created
	VNI     int       `json:"vni"` // of its nodes' own network, unique among clusters
	Created time.Time `json:"created"`
	ReadyAt time.Time `json:"readyAt,omitzero"`
	Deleted time.Time `json:"deleted,omitzero"` // somebody asked for its end then
	// Published is the machines' ports of its load balancers, by namespace/name/protocol/port.
	Published map[string]uint16 `json:"published,omitempty"`
	Images    []string          `json:"images,omitempty"` // loaded into it by name
	// SharedIDs: its nodes have no user namespaces and run with their machines' own user ids, since there was no machine
	// with user namespaces when it was created.
	SharedIDs bool `json:"sharedIDs,omitempty"`
}

// The tables. Keys are a cluster's authorities and signing keys, leaves what was issued to its members: both sealed under the
// root key, both by Row.ID, so that a later cluster of the same name has none of it.
var (
	rows   = store.NewTable[Row]("kubernetes", "clusters") // by name
	keys   = store.NewTable[identity.Sealed]("kubernetes", "keys")
	leaves = store.NewTable[identity.Sealed]("kubernetes", "leaves") // by ID/member
)

func leafID(cluster, member string) string { return cluster + "/" + member }
