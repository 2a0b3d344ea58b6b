package kernel

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
)

// packedGroups begins a packed list of instances; a JSON list begins otherwise. What follows: the shared texts (specs,
// and the ids around a UUID), each a length, doubled, and bytes, after their number; the number of instances; and each
// instance as its flags say. Numbers are varints. A text of hexadecimal digits, as specs have, is the bytes that they
// say, its length made odd.
const packedGroups = 1

// The flags of a packed instance: what it has.
const (
	hasUUID = 1 << iota // the id is shared texts around a UUID, else a text of its own
	hasAddress
	hasPorts
	hasStop // the goal is to stop
	hasWhy
	hasSizes // as JSON: few instances were resized
)

// PackAssignments packs instances for a row of the store: a third of what JSON takes.
func PackAssignments(groups []*Assignment) ([]byte, error) {
	var texts shared
	body := binary.AppendUvarint(nil, uint64(len(groups)))
	last := int64(0)
	for _, g := range groups {
		flags := assignmentFlags(g)
		before, id, after, ok := cutUUID(string(g.ID))
		if ok {
			flags |= hasUUID
		}
		if g.Goal != GoalRun && g.Goal != GoalStop {
			return nil, fmt.Errorf("group %s: goal %q", g.ID, g.Goal)
		}
		body = append(body, flags)
		if ok {
			body = texts.append(body, before)
			body = append(body, id[:]...)
			body = texts.append(body, after)
		} else {
			body = appendText(body, string(g.ID))
		}
		body = texts.append(body, string(g.Spec))
		body = binary.AppendVarint(body, g.Placed.UnixNano()-last)
		last = g.Placed.UnixNano()
		body = appendAssignment(body, g)
	}
	out := binary.AppendUvarint([]byte{packedGroups}, uint64(len(texts.list)))
	for _, t := range texts.list {
		if raw, err := hex.DecodeString(t); err == nil && hex.EncodeToString(raw) == t {
			out = append(binary.AppendUvarint(out, uint64(len(raw))<<1|1), raw...)
		} else {
			out = append(binary.AppendUvarint(out, uint64(len(t))<<1), t...)
		}
	}
	return append(out, body...), nil
}

// UnpackAssignments reads what PackAssignments wrote, or a JSON list. What cannot be read is an
// errdefs.ErrInvalidArgument.
func UnpackAssignments(b []byte) ([]Assignment, error) {
	if len(b) == 0 || b[0] != packedGroups {
		var groups []Assignment
		if err := json.Unmarshal(b, &groups); err != nil {
			return nil, invalid("groups: %v", err)
		}
		for k := range groups {
			if g := &groups[k]; g.Goal != GoalRun && g.Goal != GoalStop {
				return nil, invalid("group %s: goal %q", g.ID, g.Goal)
			}
		}
		return groups, nil
	}
	r := &unpacker{rest: string(b[1:])}
	texts := make([]string, r.count())
	for k := range texts {
		n := r.number()
		if n>>1 > uint64(len(r.rest)) {
			return nil, invalid("groups: the texts cannot be read")
		}
		b := r.take(int(n >> 1))
		if texts[k] = strings.Clone(b); n&1 != 0 {
			texts[k] = hex.EncodeToString([]byte(b))
		}
	}
	groups := make([]Assignment, r.count())
	shared := func() string {
		if k := r.number(); k < uint64(len(texts)) {
			return texts[k]
		}
		r.broken = true
		return ""
	}
	last := int64(0)
	for k := range groups {
		g := &groups[k]
		flags := r.take(1)[0]
		if flags&hasUUID != 0 {
			before, id := shared(), uuid.UUID([]byte(r.take(16)))
			g.ID = InstanceID(before + id.String() + shared())
		} else {
			g.ID = InstanceID(strings.Clone(r.text()))
		}
		g.Spec = SpecID(shared())
		last += r.signed()
		g.Placed = time.Unix(0, last).UTC()
		r.assignment(flags, g)
		g.Why = strings.Clone(g.Why)
		if r.broken {
			return nil, invalid("group %d of %d cannot be read", k+1, len(groups))
		}
	}
	if r.broken || len(r.rest) > 0 {
		return nil, invalid("groups: %d bytes are left over", len(r.rest))
	}
	return groups, nil
}

// assignmentFlags says what an instance has, but for how its id is written.
func assignmentFlags(g *Assignment) (flags byte) {
	for _, f := range []struct {
		has  bool
		flag byte
	}{{g.Address.IsValid(), hasAddress}, {g.HostPorts != nil, hasPorts}, {g.Goal == GoalStop, hasStop},
		{g.Why != "", hasWhy}, {g.Sizes != nil, hasSizes}} {
		if f.has {
			flags |= f.flag
		}
	}
	return flags
}

// appendAssignment writes what assignmentFlags says that an instance has; unpacker.assignment reads it.
func appendAssignment(b []byte, g *Assignment) []byte {
	if g.Address.IsValid() {
		b = appendText(b, string(g.Address.AsSlice()))
	}
	if g.HostPorts != nil {
		b = binary.AppendUvarint(b, uint64(len(g.HostPorts)))
		for _, p := range g.HostPorts {
			b = binary.AppendUvarint(b, uint64(p))
		}
	}
	if g.Why != "" {
		b = appendText(b, g.Why)
	}
	if g.Sizes != nil {
		raw, _ := json.Marshal(g.Sizes) // numbers only
		b = appendText(b, string(raw))
	}
	return b
}

func (r *unpacker) assignment(flags byte, g *Assignment) {
	if flags&hasAddress != 0 {
		var ok bool
		g.Address, ok = netip.AddrFromSlice([]byte(r.text()))
		r.broken = r.broken || !ok
	}
	if flags&hasPorts != 0 {
		g.HostPorts = make([]uint16, r.count())
		for n := range g.HostPorts {
			port := r.number()
			g.HostPorts[n] = uint16(port)
			r.broken = r.broken || port > math.MaxUint16
		}
	}
	g.Goal = GoalRun
	if flags&hasStop != 0 {
		g.Goal = GoalStop
	}
	if flags&hasWhy != 0 {
		g.Why = r.text()
	}
	if flags&hasSizes != 0 {
		r.broken = json.Unmarshal([]byte(r.text()), &g.Sizes) != nil || r.broken
	}
}

// cutUUID finds the last UUID in an id.
func cutUUID(id string) (before string, u uuid.UUID, after string, ok bool) {
	const length = 36
	for end := len(id); end >= length; end-- {
		if id[end-13] != '-' || id[end-18] != '-' {
			continue
		}
		text := id[end-length : end]
		if u, err := uuid.Parse(text); err == nil && u.String() == text {
			return id[:end-length], u, id[end:], true
		}
	}
	return id, uuid.UUID{}, "", false
}

// shared is texts that are written once.
type shared struct {
	at   map[string]uint64
	list []string
}

func (s *shared) append(b []byte, text string) []byte {
	k, ok := s.at[text]
	if !ok {
		if s.at == nil {
			s.at = map[string]uint64{}
		}
		k = uint64(len(s.list))
		text = strings.Clone(text)
		s.at[text] = k
		s.list = append(s.list, text)
	}
	return binary.AppendUvarint(b, k)
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// unpacker reads what is packed. Once something is not there, it gives zeros and is broken. Its texts are parts of the
// whole.
type unpacker struct {
	rest   string
	broken bool
}

func (r *unpacker) number() (v uint64) {
	for n := range min(len(r.rest), binary.MaxVarintLen64) {
		b := r.rest[n]
		v |= uint64(b&0x7f) << (7 * n)
		if b < 0x80 {
			if n == binary.MaxVarintLen64-1 && b > 1 {
				break // more than 64 bits
			}
			r.rest = r.rest[n+1:]
			return v
		}
	}
	r.broken, r.rest = true, ""
	return 0
}

func (r *unpacker) signed() int64 {
	v := r.number()
	return int64(v>>1) ^ -int64(v&1)
}

// count is the number of things that follow, of which each takes at least a byte.
func (r *unpacker) count() int {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.broken = true
		return 0
	}
	return int(n)
}

// take is the next n bytes, zeros if there are not as many.
func (r *unpacker) take(n int) string {
	if n > len(r.rest) {
		r.broken, r.rest = true, ""
		return string(make([]byte, n))
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *unpacker) text() string { return r.take(r.count()) }
