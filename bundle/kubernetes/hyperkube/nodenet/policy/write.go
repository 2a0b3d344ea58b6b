package policy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// Table is the name of the table, of family ip, that a Writer owns.
const Table = "netpol"

// budget bounds one transaction, in bytes of netlink messages as estimated below. A user namespace
// allows 212,992 (net.core.wmem_default, which it may not pass).
const budget = 160 << 10

// What things weigh in a transaction: what nft 1.0.6 was seen to send, by bisection, and a little more.
const (
	objectWeight  = 150 // a chain 66, a set 110
	elementWeight = 150 // of sets 100 to 149, of maps 125
	ruleWeight    = 500 // 404 to 436
	// listWeight is for each further word of a list in a rule, which is an unnamed set: 373 more for three words, 682 for
	// ten ranges.
	listWeight = 200
)

// refusals are the verdicts that refuse a packet; the first that the kernel knows is used.
var refusals = []string{"reject with icmp admin-prohibited", "drop"}

// Writer keeps the table as it was told last. It belongs to one goroutine.
type Writer struct {
	nft     knftables.Interface
	refusal string
	epoch   string
	written *Rules // nil before the first writing and after one that failed
}

// NewWriter returns a writer that has written nothing yet.
func NewWriter(nft knftables.Interface) *Writer {
	return &Writer{nft: nft, epoch: newEpoch()}
}

func newEpoch() string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Epoch is the generation that the next rules must be compiled with.
func (w *Writer) Epoch() string { return w.epoch }

// Write makes the table hold want, which the writer keeps and the caller no longer changes. After an error the table
// may hold parts of it, but nothing that packets meet; the next call writes everything, under another Epoch.
func (w *Writer) Write(ctx context.Context, want *Rules) error {
	var err error
	if w.written == nil {
		err = w.replace(ctx, want)
	} else {
		err = w.change(ctx, want)
	}
	if err != nil {
		w.written = nil
		w.epoch = newEpoch()
		return fmt.Errorf("table %s: %w", Table, err)
	}
	w.written = want
	return nil
}

// change brings the table from what was written to want: what is new, then what refers to it, then what nothing refers
// to.
func (w *Writer) change(ctx context.Context, want *Rules) error {
	build := w.additions(w.written, want)
	flip := flips(w.written, want)
	if weight(build)+weight(flip) <= budget {
		build, flip = append(build, flip...), nil
	}
	for _, part := range [][]operation{build, flip, leftovers(w.written, want)} {
		if err := w.run(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// replace writes want beside whatever the table holds, points the maps to it in one transaction, and removes the rest.
func (w *Writer) replace(ctx context.Context, want *Rules) error {
	tx := w.nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("NetworkPolicy")})
	for _, m := range []string{ingressMap, egressMap} {
		tx.Add(&knftables.Map{Name: m, Type: "ipv4_addr : verdict"})
	}
	tx.Add(&knftables.Set{Name: selfSet, Type: "ipv4_addr . ipv4_addr"})
	if err := w.nft.Run(ctx, tx); err != nil {
		return err
	}
	if err := w.chooseRefusal(ctx); err != nil {
		return err
	}
	if err := w.run(ctx, w.additions(newRules(), want)); err != nil {
		return err
	}

	tx = w.nft.NewTransaction()
	baseChains(tx)
	tx.Flush(&knftables.Map{Name: ingressMap})
	tx.Flush(&knftables.Map{Name: egressMap})
	tx.Flush(&knftables.Set{Name: selfSet})
	for _, op := range flips(newRules(), want) {
		op.do(tx)
	}
	if err := w.nft.Run(ctx, tx); err != nil {
		return err
	}
	return w.removeStrangers(ctx, want)
}

// removeStrangers removes chains and sets that are not of want: a process before this one left them.
func (w *Writer) removeStrangers(ctx context.Context, want *Rules) error {
	stood := newRules()
	chains, err := w.nft.List(ctx, "chains")
	if err != nil {
		return err
	}
	for _, c := range chains {
		if c != "forward" && c != "input" {
			stood.Chains[c] = nil
		}
	}
	sets, err := w.nft.List(ctx, "sets")
	if err != nil {
		return err
	}
	for _, s := range sets {
		if s != selfSet {
			stood.Sets[s] = &Set{}
		}
	}
	return w.run(ctx, leftovers(stood, want))
}

func (w *Writer) chooseRefusal(ctx context.Context) error {
	var err error
	for _, r := range refusals {
		tx := w.nft.NewTransaction()
		tx.Add(&knftables.Chain{Name: "refusal"})
		tx.Add(&knftables.Rule{Chain: "refusal", Rule: r})
		if err = w.nft.Check(ctx, tx); err == nil {
			w.refusal = r
			return nil
		}
	}
	return err
}

// operation is one step of a transaction and what it weighs. What must not be torn apart is one operation.
type operation struct {
	weight int
	do     func(*knftables.Transaction)
}

func weight(ops []operation) int {
	sum := 0
	for _, o := range ops {
		sum += o.weight
	}
	return sum
}

// run runs the operations in order, in as few transactions as the budget allows.
func (w *Writer) run(ctx context.Context, ops []operation) error {
	for len(ops) > 0 {
		tx := w.nft.NewTransaction()
		sum, n := 0, 0
		for n < len(ops) && (n == 0 || sum+ops[n].weight <= budget) {
			ops[n].do(tx)
			sum += ops[n].weight
			n++
		}
		if err := w.nft.Run(ctx, tx); err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}

// additions are the sets, elements and chains of want that have does not hold.
func (w *Writer) additions(have, want *Rules) []operation {
	var ops []operation
	for _, name := range sortedKeys(want.Sets) {
		set, old := want.Sets[name], have.Sets[name]
		if old == nil {
			old = &Set{}
			ops = append(ops, operation{objectWeight, func(tx *knftables.Transaction) { tx.Add(declare(name, set.Kind)) }})
		}
		for _, e := range sortedKeys(set.Elements) {
			if !old.Elements[e] {
				ops = append(ops, operation{elementWeight, func(tx *knftables.Transaction) { tx.Add(element(name, e)) }})
			}
		}
	}
	for _, name := range sortedKeys(want.Chains) {
		if _, stands := have.Chains[name]; stands {
			continue
		}
		// Flushed, since a writing that broke off may have begun it.
		ops = append(ops, operation{2 * objectWeight, func(tx *knftables.Transaction) {
			tx.Add(&knftables.Chain{Name: name})
			tx.Flush(&knftables.Chain{Name: name})
		}})
		for _, r := range slices.Concat(want.Chains[name], []string{w.refusal}) {
			ops = append(ops, operation{ruleWeight + listWeight*strings.Count(r, ","), func(tx *knftables.Transaction) {
				tx.Add(&knftables.Rule{Chain: name, Rule: r})
			}})
		}
	}
	return ops
}

// flips point the maps to want's chains, and take elements out of sets that stay.
func flips(have, want *Rules) []operation {
	var ops []operation
	ops = append(ops, mapFlips(ingressMap, have.Ingress, want.Ingress)...)
	ops = append(ops, mapFlips(egressMap, have.Egress, want.Egress)...)
	was, is := isolated(have), isolated(want)
	for _, a := range sortedAddrs(is) {
		if _, stands := was[a]; !stands {
			ops = append(ops, operation{elementWeight, func(tx *knftables.Transaction) { tx.Add(selfElement(a)) }})
		}
	}
	for _, a := range sortedAddrs(was) {
		if _, stays := is[a]; !stays {
			ops = append(ops, operation{elementWeight, func(tx *knftables.Transaction) { tx.Delete(selfElement(a)) }})
		}
	}
	for _, name := range sortedKeys(have.Sets) {
		set := want.Sets[name]
		if set == nil {
			continue
		}
		for _, e := range sortedKeys(have.Sets[name].Elements) {
			if !set.Elements[e] {
				ops = append(ops, operation{elementWeight, func(tx *knftables.Transaction) { tx.Delete(element(name, e)) }})
			}
		}
	}
	return ops
}

func mapFlips(name string, have, want map[netip.Addr]string) []operation {
	var ops []operation
	all := map[netip.Addr]string{}
	for a := range have {
		all[a] = ""
	}
	for a := range want {
		all[a] = ""
	}
	for _, a := range sortedAddrs(all) {
		from, to := have[a], want[a]
		if from == to {
			continue
		}
		ops = append(ops, operation{2 * elementWeight, func(tx *knftables.Transaction) {
			if from != "" {
				tx.Delete(&knftables.Element{Map: name, Key: []string{a.String()}})
			}
			if to != "" {
				tx.Add(&knftables.Element{Map: name, Key: []string{a.String()}, Value: []string{"jump " + to}})
			}
		}})
	}
	return ops
}

// leftovers are removals of chains, then sets, that want does not have.
func leftovers(have, want *Rules) []operation {
	var ops []operation
	for _, name := range sortedKeys(have.Chains) {
		if _, stays := want.Chains[name]; !stays {
			ops = append(ops, operation{2 * objectWeight, func(tx *knftables.Transaction) {
				tx.Flush(&knftables.Chain{Name: name})
				tx.Delete(&knftables.Chain{Name: name})
			}})
		}
	}
	for _, name := range sortedKeys(have.Sets) {
		if want.Sets[name] == nil {
			ops = append(ops, operation{objectWeight, func(tx *knftables.Transaction) { tx.Delete(&knftables.Set{Name: name}) }})
		}
	}
	return ops
}
