package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/kernel"
)

// record is an attachment as stored on disk. It is written before anything is created and removed after everything is
// gone, so that a half-made attachment is known.
type record struct {
	kernel.Attachment
	Link   string `json:"link,omitempty"`   // the machine's end of the instance's link
	MAC    string `json:"mac,omitempty"`    // link address of the instance's end
	Number uint32 `json:"number,omitempty"` // of its named network on this machine; zero is the datacenter's own
	Done   bool   `json:"done,omitempty"`   // everything was created

	detaching bool // in memory only: Detach or a failed Attach began to remove it
}

// handle returns the name of an instance in file names and for CNI.
func handle(g kernel.InstanceID) string {
	sum := sha256.Sum256([]byte(g))
	return hex.EncodeToString(sum[:10])
}

func (n *Network) netns(g kernel.InstanceID) string {
	return filepath.Join(n.cfg.State, "netns", handle(g))
}

func (n *Network) recordPath(g kernel.InstanceID) string {
	return filepath.Join(n.recordDir(), handle(g)+".json")
}

// lockGroup waits until no other call works on the instance, and keeps others out until done is called. The mutex is
// held before and after.
func (n *Network) lockInstance(g kernel.InstanceID) (done func()) {
	for n.busy[g] {
		n.idle.Wait()
	}
	n.busy[g] = true
	return func() {
		delete(n.busy, g)
		n.idle.Broadcast()
	}
}

// Attach gives a bridge-mode instance its namespace, address and host ports, and returns the namespace's path.
// Repeated, it completes what is missing. A host port that is taken is an errdefs.ErrAlreadyExists that names its
// owner.
func (n *Network) Attach(ctx context.Context, a kernel.Attachment) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer n.lockInstance(a.Instance)()
	if err := n.checkAttachment(a); err != nil {
		return "", err
	}
	path := n.netns(a.Instance)
	old, exists := n.records[a.Instance]
	if exists {
		if old.Done && !old.detaching && equalAttachment(old.Attachment, a) && namespacesExist(path, a) &&
			linkExists(old.Link) {
			if err := n.retryRules(); err != nil && !n.onlyPublished(err) {
				return "", fmt.Errorf("group %s: %w", a.Instance, err)
			}
			return path, nil
		}
		if err := n.detach(ctx, old); err != nil {
			return "", err
		}
	}
	r := record{Attachment: a, Number: networkNumber(n.records, a.Network)}
	var taken []Port
	for f, b := range hostBackends(a) {
		if err := n.ports.bind(f.Port, b.owner); err != nil {
			for _, p := range taken {
				n.ports.release(p, b.owner)
			}
			return "", fmt.Errorf("group %s: %w", a.Instance, err)
		}
		taken = append(taken, f.Port)
	}
	if err := n.saveRecord(r); err != nil {
		return "", err
	}
	l := n.layout
	n.mu.Unlock()
	link, mac, err := n.connectInstance(ctx, l, a)
	n.mu.Lock()
	if err == nil {
		r.Link, r.MAC, r.Done = link, mac, true
		if err = n.saveRecord(r); err == nil {
			err = n.changeRules(n.addHostPorts(r))
		}
	}
	if err != nil && !n.onlyPublished(err) {
		return "", fmt.Errorf("group %s: %w", a.Instance, errors.Join(err, n.detach(context.WithoutCancel(ctx), r)))
	}
	return path, nil
}

// onlyPublished reports whether an error of changeRules is only about published ports that other processes have.
func (n *Network) onlyPublished(err error) bool {
	return errdefs.IsAlreadyExists(err) && len(n.blocked) > 0
}

func (n *Network) checkAttachment(a kernel.Attachment) error {
	switch {
	case !n.layout.Subnet.IsValid():
		return notConfigured()
	case a.Instance == "" || a.Mode != kernel.NetworkBridge:
		return fmt.Errorf("group %q with network mode %q has no namespace to attach: %w", a.Instance, a.Mode,
			errdefs.ErrInvalidArgument)
	case !n.layout.Subnet.Contains(a.Address) || a.Address == n.layout.Gateway:
		return fmt.Errorf("group %s: address %s is not for groups of subnet %s: %w", a.Instance, a.Address, n.layout.Subnet,
			errdefs.ErrInvalidArgument)
	}
	if r := a.IDs; r != nil && (r.First == 0 || r.Count == 0 || uint64(r.First)+uint64(r.Count) > maxID) {
		return fmt.Errorf("group %s: %d ids from %d on are not for a user namespace: %w", a.Instance, r.Count, r.First,
			errdefs.ErrInvalidArgument)
	}
	for _, m := range a.Ports {
		if m.Protocol != "tcp" && m.Protocol != "udp" || m.Host != 0 && m.Container == 0 {
			return fmt.Errorf("group %s: port %+v: %w", a.Instance, m, errdefs.ErrInvalidArgument)
		}
	}
	for _, r := range n.records {
		if r.Instance != a.Instance && r.Address.IsValid() && r.Address == a.Address {
			return fmt.Errorf("group %s: address %s is group %s's: %w", a.Instance, a.Address, r.Instance,
				errdefs.ErrAlreadyExists)
		}
	}
	return nil
}

// maxID is the limit of user ids; the last one means "none".
const maxID = 1<<32 - 1

func equalAttachment(a, b kernel.Attachment) bool {
	return a.Mode == b.Mode && a.Address == b.Address && slices.Equal(a.Ports, b.Ports) && a.Network == b.Network &&
		(a.IDs == nil) == (b.IDs == nil) && (a.IDs == nil || *a.IDs == *b.IDs)
}

// connectGroup creates namespace and link and returns the link's name on the machine and the instance's link address.
// The mutex is not held.
func (n *Network) connectInstance(ctx context.Context, l Layout, a kernel.Attachment) (link, mac string, err error) {
	path := n.netns(a.Instance)
	if err := dropNamespace(path); err != nil { // of before a boot
		return "", "", err
	}
	if err := makeNamespace(path, a.IDs); err != nil {
		return "", "", err
	}
	return n.cni(l).add(ctx, handle(a.Instance), path, a.Address)
}

// detach removes an attachment, however much of it exists: first its frontends, last its record and with that the
// rule against sending from a false address. The mutex is held, but not while plugins run.
func (n *Network) detach(ctx context.Context, r record) error {
	r.detaching = true
	n.records[r.Instance] = r
	if err := n.changeRules(n.removeHostPorts(r)); err != nil && !n.onlyPublished(err) {
		return err
	}
	if r.Mode == kernel.NetworkBridge {
		l, path := n.layout, n.netns(r.Instance)
		n.mu.Unlock()
		err := n.cni(l).del(ctx, handle(r.Instance), path)
		if r.Link != "" {
			err = errors.Join(err, deleteLink(r.Link))
		}
		err = errors.Join(err, dropNamespace(path))
		n.mu.Lock()
		if err != nil {
			return fmt.Errorf("group %s: %w", r.Instance, err)
		}
	}
	if err := os.Remove(n.recordPath(r.Instance)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("group %s: %w", r.Instance, err)
	}
	delete(n.records, r.Instance)
	if err := n.changeRules(nil); err != nil && !n.onlyPublished(err) {
		return err
	}
	return nil
}

// OpenPorts opens the host ports of a host-mode instance to other instances. The first call for an instance checks that
// they are free.
func (n *Network) OpenPorts(_ context.Context, a kernel.Attachment) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer n.lockInstance(a.Instance)()
	switch {
	case !n.layout.Subnet.IsValid():
		return notConfigured()
	case a.Instance == "" || a.Mode != kernel.NetworkHost:
		return fmt.Errorf("group %q with network mode %q has no ports of the machine: %w", a.Instance, a.Mode,
			errdefs.ErrInvalidArgument)
	}
	if old, ok := n.records[a.Instance]; ok && equalAttachment(old.Attachment, a) {
		if err := n.retryRules(); err != nil && !n.onlyPublished(err) {
			return err
		}
		return nil // its own task may listen by now
	}
	for _, m := range a.Ports {
		if m.Host == 0 {
			continue
		}
		p := Port{m.Protocol, m.Host}
		if h := n.ports[p]; h != nil {
			return fmt.Errorf("group %s: %s port %d is held by %s: %w", a.Instance, p.Protocol, p.Number, h.owner,
				errdefs.ErrAlreadyExists)
		}
		if err := checkFree(p); err != nil {
			return fmt.Errorf("group %s: %w", a.Instance, err)
		}
	}
	if err := n.saveRecord(record{Attachment: a, Done: true}); err != nil {
		delete(n.records, a.Instance) // a repeated call must save it
		return err
	}
	if err := n.changeRules(nil); err != nil && !n.onlyPublished(err) {
		return err
	}
	return nil
}

// Detach undoes Attach and OpenPorts. Unknown instances are not an error.
func (n *Network) Detach(ctx context.Context, g kernel.InstanceID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer n.lockInstance(g)()
	r, ok := n.records[g]
	if !ok {
		return nil
	}
	if !n.layout.Subnet.IsValid() {
		return notConfigured()
	}
	return n.detach(ctx, r)
}

// Attached lists the instances that are attached, half-made ones included, by this or an earlier process.
func (n *Network) Attached(context.Context) ([]kernel.InstanceID, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.records)), nil
}

// saveRecord puts a record into memory and onto disk.
func (n *Network) saveRecord(r record) error {
	n.records[r.Instance] = r
	return writeJSON(n.recordPath(r.Instance), r)
}

func readRecords(dir string) (map[kernel.InstanceID]record, error) {
	out := map[kernel.InstanceID]record{}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		var r record
		if err := readJSON(filepath.Join(dir, e.Name()), &r); err != nil {
			return nil, err
		}
		out[r.Instance] = r
	}
	return out, nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeJSON replaces a file so that a crash leaves the old or the new one. Neither outlives the machine's next start
// for long, and so the name need not be synced.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return durable.ReplaceFile(path, b, 0o600)
}
