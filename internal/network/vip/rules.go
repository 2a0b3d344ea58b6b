package vip

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	nl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/network"
)

const (
	maxElements = 256      // elements in one message; its list may have 64 KiB
	maxOutBytes = 64 << 20 // one transaction: a million elements
	maxInBytes  = 8 << 20  // its acknowledgements
)

// Rules implements network.Rules in the network namespace it was made in.
type Rules struct {
	mu   sync.Mutex
	conn *nftables.Conn

	// Guarded by mu. t is nil before Configure.
	t             *tables
	current       contents       // what the kernel's sets hold, unless stale
	balancerUsers map[string]int // by balancer chain: how many frontends use it
	ruleHandles   map[string][]uint64
	gen           uint32 // the kernel's generation after the last change that was understood
	stale         bool   // the last transaction failed: nothing is known
}

// New makes rules; they are there after Configure.
func New() (*Rules, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *nl.Conn) error {
		return errors.Join(c.SetWriteBuffer(maxOutBytes), c.SetReadBuffer(maxInBytes))
	}))
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return &Rules{conn: conn}, nil
}

// Close ends the connection to the kernel; the rules stay.
func (r *Rules) Close() error { return r.conn.CloseLasting() }

// Configure implements network.Rules.
func (r *Rules) Configure(l network.Layout) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := newTables(l)
	if r.t != nil && r.t.stamp() == t.stamp() && r.t.ip.Name == t.ip.Name {
		_, err := r.repair()
		return err
	}
	r.t, r.current = t, newContents()
	if _, intact, err := r.inspect(); err != nil {
		return err
	} else if intact {
		return r.adopt()
	}
	return r.build()
}

// adopt reads the tables that an earlier process left.
func (r *Rules) adopt() error {
	p, err := r.loadContents()
	if err != nil {
		return err
	}
	r.current, r.balancerUsers, r.stale = p, map[string]int{}, false
	for _, c := range p[frontends] {
		r.balancerUsers[c]++
	}
	if r.ruleHandles, _, err = r.inspect(); err != nil {
		return err
	}
	r.gen, err = generation()
	return err
}

// build replaces the tables, whatever they are, by those of current, in one transaction.
func (r *Rules) build() error {
	for _, t := range []*nftables.Table{r.t.ip, r.t.bridge} {
		r.conn.AddTable(t)
		r.conn.DelTable(t)
		r.conn.AddTable(t)
	}
	for _, name := range setNames {
		if err := r.conn.AddSet(r.t.sets[name], nil); err != nil {
			return fmt.Errorf("nftables set %s: %w", name, err)
		}
	}
	r.balancerUsers = map[string]int{}
	for _, c := range r.current[frontends] {
		if r.balancerUsers[c]++; r.balancerUsers[c] == 1 {
			r.addBalancer(c)
		}
	}
	for name, m := range r.current {
		if err := r.addElements(name, maps.All(m)); err != nil {
			return err
		}
	}
	for _, c := range r.t.chains {
		r.conn.AddChain(c.Chain)
		for _, exprs := range c.rules {
			r.conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c.Chain, Exprs: exprs})
		}
	}
	r.conn.AddChain(&nftables.Chain{Table: r.t.ip, Name: r.t.stamp()})
	if err := r.conn.Flush(); err != nil {
		r.stale = true
		return fmt.Errorf("nftables table %s: %w", r.t.ip.Name, kind(err))
	}
	r.stale = false
	made, intact, err := r.inspect()
	if err != nil {
		return err
	}
	if !intact {
		return fmt.Errorf("nftables table %s is not as it was just made: %w", r.t.ip.Name, errdefs.ErrInternal)
	}
	r.ruleHandles = made
	r.gen, err = generation()
	return err
}

func (r *Rules) addBalancer(name string) {
	c, rules := r.t.balancer(name)
	r.conn.AddChain(c)
	for _, exprs := range rules {
		r.conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: exprs})
	}
}

// addElements queues the addition of elements.
func (r *Rules) addElements(name string, all iter.Seq2[string, string]) error {
	var list []nftables.SetElement
	for k, v := range all {
		e := nftables.SetElement{Key: []byte(k), Val: []byte(v)}
		if name == frontends {
			e.VerdictData, e.Val = &expr.Verdict{Kind: expr.VerdictGoto, Chain: v}, nil
		}
		list = append(list, e)
	}
	for chunk := range slices.Chunk(list, maxElements) {
		if err := r.conn.SetAddElements(r.t.sets[name], chunk); err != nil {
			return fmt.Errorf("nftables set %s: %w", name, err)
		}
	}
	return nil
}

// ChangeRules implements network.Rules.
func (r *Rules) ChangeRules(c network.RuleChange) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.t == nil {
		return fmt.Errorf("packet rules are not configured: %w", errdefs.ErrFailedPrecondition)
	}
	if r.stale {
		if _, err := r.repair(); err != nil {
			return err
		}
	}
	e := edits{}
	gone := map[network.Frontend][]netip.AddrPort{}
	for f, want := range c.Backends {
		if left := r.current.setBackends(e, f, want); len(left) > 0 && f.Protocol == "udp" {
			gone[f] = left
		}
	}
	if c.Links != nil {
		l, s, twice := map[string]string{}, map[string]string{}, map[string]string{}
		for name, addr := range c.Links {
			k := string(ifname(name))
			l[k], s[k+addrKey(addr)], twice[addrKey(addr)+addrKey(addr)] = "", "", ""
		}
		r.current.replaceSet(e, links, l)
		r.current.replaceSet(e, senders, s)
		r.current.replaceSet(e, self, twice)
	}
	if c.Open != nil {
		r.current.replaceSet(e, open, portKeys(c.Open))
	}
	if c.Bound != nil {
		r.current.replaceSet(e, bound, portKeys(c.Bound))
	}
	if c.Networks != nil {
		of, both := networkElements(c.Networks, addrKey)
		r.current.replaceSet(e, networks, of)
		r.current.replaceSet(e, members, both)
	}
	if c.Inner != nil {
		of, both := networkElements(c.Inner, portKey)
		for k := range of {
			of[k] = "" // a plain set
		}
		r.current.replaceSet(e, inner, of)
		r.current.replaceSet(e, insiders, both)
	}
	if err := r.commitEdits(e); err != nil {
		return err
	}
	return deleteFlows(gone, e[networks])
}

func portKeys(ports map[network.Port]bool) map[string]string {
	out := make(map[string]string, len(ports))
	for p := range ports {
		out[portKey(p)] = ""
	}
	return out
}

// networkElements returns a map of keys to the numbers of their networks, and a set of number and key.
func networkElements[K comparable](all map[K]uint32, key func(K) string) (of, both map[string]string) {
	of, both = map[string]string{}, map[string]string{}
	for k, n := range all {
		of[key(k)], both[numberKey(n)+key(k)] = numberKey(n), ""
	}
	return of, both
}

// commitEdits applies the edits in one transaction.
func (r *Rules) commitEdits(e edits) error {
	if len(e) == 0 {
		return nil
	}
	users := maps.Clone(r.balancerUsers)
	for k, v := range e[frontends] {
		if old, ok := r.current[frontends][k]; ok {
			users[old]--
		}
		if v != nil {
			users[*v]++
		}
	}
	unused, err := r.ensureBalancers(users)
	if err != nil {
		return err
	}
	for _, name := range setNames {
		var out []nftables.SetElement
		for k, v := range e[name] {
			if old, ok := r.current[name][k]; ok && (v == nil || *v != old) {
				out = append(out, nftables.SetElement{Key: []byte(k)})
			}
		}
		for chunk := range slices.Chunk(out, maxElements) {
			if err := r.conn.SetDeleteElements(r.t.sets[name], chunk); err != nil {
				return fmt.Errorf("nftables set %s: %w", name, err)
			}
		}
	}
	for name, m := range e {
		if err := r.addElements(name, present(m)); err != nil {
			return err
		}
	}
	for _, c := range unused {
		r.conn.FlushChain(&nftables.Chain{Table: r.t.ip, Name: c})
		r.conn.DelChain(&nftables.Chain{Table: r.t.ip, Name: c})
	}
	if err := r.flush(); err != nil {
		return err
	}
	r.current.applyEdits(e)
	r.balancerUsers = users
	for _, c := range unused {
		delete(r.ruleHandles, c)
	}
	return nil
}

// ensureBalancers creates the balancer chains that users need and returns those that are no longer needed. New ones
// are a transaction of their own: a packet already on its way through the old rules would find a chain of the same
// transaction empty.
func (r *Rules) ensureBalancers(users map[string]int) (unused []string, err error) {
	var added []string
	for c, n := range users {
		if n == 0 {
			unused = append(unused, c)
			delete(users, c)
		} else if _, there := r.balancerUsers[c]; !there {
			added = append(added, c)
			r.addBalancer(c)
		}
	}
	if len(added) == 0 {
		return unused, nil
	}
	if err := r.flush(); err != nil {
		return nil, err
	}
	for _, c := range added {
		if r.ruleHandles[c], err = r.handles(r.t.ip, c); err != nil {
			return nil, err
		}
		r.balancerUsers[c] = 0 // it is there, should the next transaction fail
	}
	return unused, nil
}

func present(m map[string]*string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for k, v := range m {
			if v != nil && !yield(k, *v) {
				return
			}
		}
	}
}

// flush sends the queued transaction and counts the generation.
func (r *Rules) flush() error {
	before, err := generation()
	if err != nil {
		return err
	}
	if err := r.conn.Flush(); err != nil {
		r.stale = true
		return fmt.Errorf("nftables table %s: %w", r.t.ip.Name, kind(err))
	}
	if r.gen == before {
		r.gen++ // somebody else's change in between would make it one more: the next Repair compares
	}
	return nil
}

// Frontends implements network.Rules.
func (r *Rules) Frontends() iter.Seq2[network.Frontend, []netip.AddrPort] {
	return func(yield func(network.Frontend, []netip.AddrPort) bool) {
		r.mu.Lock()
		all := map[network.Frontend][]netip.AddrPort{}
		for _, set := range []string{frontends, refused} {
			for k := range r.current[set] {
				f := parseFrontend(k)
				all[f] = r.current.backendsOf(f)
			}
		}
		r.mu.Unlock()
		for f, to := range all {
			if !yield(f, to) {
				return
			}
		}
	}
}

// Repair implements network.Rules. While nobody changes the machine's ruleset it costs one message.
func (r *Rules) Repair() (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.t == nil {
		return false, nil
	}
	return r.repair()
}

func (r *Rules) repair() (bool, error) {
	gen, err := generation()
	if err != nil {
		return false, err
	}
	if gen == r.gen && !r.stale {
		return false, nil
	}
	made, intact, err := r.inspect()
	if err != nil {
		return false, err
	}
	if intact && maps.EqualFunc(made, r.ruleHandles, slices.Equal) {
		p, err := r.loadContents()
		if err != nil {
			return false, err
		}
		if maps.EqualFunc(p, r.current, maps.Equal) {
			r.gen, r.stale = gen, false
			return false, nil
		}
	}
	return true, r.build()
}

// Remove implements network.Rules.
func (r *Rules) Remove(id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ip, bridge := tablesOf(id)
	for _, t := range []*nftables.Table{ip, bridge} {
		r.conn.AddTable(t)
		r.conn.DelTable(t)
	}
	if err := r.conn.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: %w", ip.Name, kind(err))
	}
	r.t = nil
	return nil
}

// inspect reads the handles of all rules by chain. intact means that there are as many chains and rules as these
// tables have.
func (r *Rules) inspect() (made map[string][]uint64, intact bool, err error) {
	made = map[string][]uint64{}
	for _, t := range []*nftables.Table{r.t.ip, r.t.bridge} {
		chains, err := r.conn.ListChainsOfTableFamily(t.Family)
		if err != nil {
			return nil, false, fmt.Errorf("nftables chains: %w", err)
		}
		for _, c := range chains {
			if c.Table.Name != t.Name {
				continue
			}
			if made[c.Name], err = r.handles(t, c.Name); err != nil {
				return nil, false, err
			}
		}
	}
	if _, ok := made[r.t.stamp()]; !ok {
		return made, false, nil
	}
	want := map[string]int{r.t.stamp(): 0}
	for _, c := range r.t.chains {
		want[c.Name] = len(c.rules)
	}
	for name, handles := range made {
		if n, ok := want[name]; ok && n == len(handles) || isBalancer(name) && len(handles) == 2 {
			delete(want, name)
			continue
		}
		return made, false, nil
	}
	return made, len(want) == 0, nil
}

func (r *Rules) handles(t *nftables.Table, chain string) ([]uint64, error) {
	rules, err := r.conn.GetRules(t, &nftables.Chain{Table: t, Name: chain})
	if err != nil {
		return nil, fmt.Errorf("nftables chain %s: %w", chain, err)
	}
	var out []uint64
	for _, x := range rules {
		out = append(out, x.Handle)
	}
	return out, nil
}

// loadContents reads the kernel's sets.
func (r *Rules) loadContents() (contents, error) {
	p := newContents()
	for _, name := range setNames {
		elems, err := r.conn.GetSetElements(r.t.sets[name])
		if err != nil {
			return nil, fmt.Errorf("nftables set %s: %w", name, err)
		}
		for _, e := range elems {
			v := string(e.Val)
			if name == frontends {
				if v, err = chainOf(e.Val); err != nil {
					return nil, err
				}
			}
			p[name][string(e.Key)] = v
		}
	}
	return p, nil
}

// chainOf reads the chain's name from an encoded verdict.
func chainOf(b []byte) (string, error) {
	d, err := nl.NewAttributeDecoder(b)
	if err != nil {
		return "", fmt.Errorf("nftables verdict: %w", err)
	}
	for d.Next() {
		if d.Type() == unix.NFTA_VERDICT_CHAIN {
			return d.String(), nil
		}
	}
	return "", d.Err()
}

// generation reads the number of the ruleset's last transaction, which may be another process's.
func generation() (uint32, error) {
	c, err := nl.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, fmt.Errorf("nftables generation: %w", err)
	}
	defer c.Close()
	msgs, err := c.Execute(nl.Message{Header: nl.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN,
		Flags: nl.Request},
		Data: make([]byte, 4)})
	if err != nil || len(msgs) == 0 || len(msgs[0].Data) < 4 {
		return 0, errors.Join(fmt.Errorf("nftables generation: no answer: %w", errdefs.ErrUnavailable), err)
	}
	d, err := nl.NewAttributeDecoder(msgs[0].Data[4:])
	if err != nil {
		return 0, fmt.Errorf("nftables generation: %w", err)
	}
	for d.Next() {
		if d.Type() == unix.NFTA_GEN_ID {
			b := d.Bytes()
			return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]), nil
		}
	}
	return 0, d.Err()
}

// deleteFlows deletes tracked UDP connections to backends that were removed from their frontend, and all connections of
// addresses that changed their network: the next instance with such an address would go on with its predecessor's.
func deleteFlows(gone map[network.Frontend][]netip.AddrPort, moved map[string]*string) error {
	if len(gone) == 0 && len(moved) == 0 {
		return nil
	}
	s := staleFlows{gone, map[netip.Addr]bool{}}
	for k := range moved {
		s.moved[netip.AddrFrom4([4]byte([]byte(k)))] = true
	}
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, s)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("connection tracking: %w", err)
	}
	return nil
}

// staleFlows selects the tracked connections that deleteFlows deletes.
type staleFlows struct {
	gone  map[network.Frontend][]netip.AddrPort
	moved map[netip.Addr]bool
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s staleFlows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	from, to, answering := addrOf(f.Forward.SrcIP), addrOf(f.Forward.DstIP), addrOf(f.Reverse.SrcIP)
	if s.moved[from] || s.moved[to] || s.moved[answering] {
		return true
	}
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	backend := netip.AddrPortFrom(answering, f.Reverse.SrcPort)
	for front, gone := range s.gone {
		if f.Forward.DstPort == front.Number && (front.Addr == network.Anywhere || front.Addr == to) &&
			slices.Contains(gone, backend) {
			return true
		}
	}
	return false
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// kind wraps the kernel's errors in the kinds that callers branch on.
func kind(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w (run as root): %w", err, errdefs.ErrPermissionDenied)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: the kernel may lack a part of nf_tables: %w", err, errdefs.ErrUnavailable)
	}
	return err
}
