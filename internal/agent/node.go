package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/agent/naming"
	"github.com/marinaos/marina/internal/agent/node"
	"github.com/marinaos/marina/internal/kernel"
)

// rangeSize is the number of ids that a container sees.
const rangeSize = 1 << 16

func hasNode(s *kernel.Spec) bool {
	for i := range s.Tasks {
		if s.Tasks[i].Class == kernel.ClassNode {
			return true
		}
	}
	return false
}

// ownRange is the ids on the machine that an instance has for itself: of those above the shared ones, the one that
// stands where its address stands in the agent's subnet. Addresses are one instance's at a time, and a reservation
// keeps its own, so ranges are too. Groups without claim and node share theirs, and so does all where there are no user
// namespaces: nil.
func ownRange(rec *record, subnet netip.Prefix, shared kernel.IDRange) (*kernel.IDRange, error) {
	if rec.Spec.Reservation == nil && !hasNode(&rec.Spec) || rec.Spec.Network.Mode != kernel.NetworkBridge ||
		shared.Count == 0 {
		return nil, nil
	}
	at := rec.Assignment.Address
	if !subnet.IsValid() || !subnet.Contains(at) || !at.Is4() {
		return nil, fmt.Errorf("address %s is not of this machine's subnet %s: %w", at, subnet, errdefs.ErrFailedPrecondition)
	}
	number := func(a netip.Addr) uint64 {
		b := a.As4()
		return uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
	}
	first := uint64(shared.First) + (number(at)-number(subnet.Masked().Addr())+1)*rangeSize
	if first+rangeSize > 1<<32-1 {
		return nil, fmt.Errorf("no user ids are left for address %s: those of the datacenter begin at %d, too high for "+
			"subnet %s: %w",
			at, shared.First, subnet, errdefs.ErrFailedPrecondition)
	}
	return &kernel.IDRange{First: uint32(first), Count: rangeSize}, nil
}

// hostname returns a bridge-mode instance's own name: a node's HOSTNAME, else its id.
func hostname(rec *record) string {
	for i := range rec.Spec.Tasks {
		if rec.Spec.Tasks[i].Class != kernel.ClassNode {
			continue
		}
		for _, v := range rec.Spec.Tasks[i].Env {
			if v.Name == "HOSTNAME" && v.From == "" && v.Value != "" {
				return naming.Dashed(v.Value, 63)
			}
		}
		return naming.Dashed(path.Base(rec.Spec.Owner), 63)
	}
	return naming.Dashed(string(rec.Assignment.ID), 63)
}

// nodeDir is the directory of a node's files among its instance's generated ones.
func nodeDir(task int) string { return "node-" + strconv.Itoa(task) }

// writeNode tells a node what it is and what it was granted.
func writeNode(root *os.Root, rec *record, task int) error {
	dir := path.Join(generatedDir, naming.Instance(rec.Assignment.ID), nodeDir(task))
	return node.Write(root, dir, machineID(rec, task), limitsOf(rec, task))
}

// machineID is a node's: the same for as long as its reservation, or else its instance, is there.
func machineID(rec *record, task int) string {
	name := string(rec.Assignment.ID)
	if c := rec.Spec.Reservation; c != nil {
		name = c.Name
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d", rec.Agent, rec.Spec.Framework, name, task))
	return hex.EncodeToString(sum[:16])
}
