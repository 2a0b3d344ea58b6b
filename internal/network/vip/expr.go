package vip

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers of 32 bits, in which keys of several fields are put together. What a rule looks up begins at key, what a
// map gives begins at found.
const (
	key   = unix.NFT_REG32_00
	found = unix.NFT_REG32_04
)

// match is a part of a rule: conditions, or the verdict for packets that meet all conditions before it.
type match = []expr.Any

func rule(parts ...match) (out match) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func equal(op expr.CmpOp, data []byte) *expr.Cmp {
	return &expr.Cmp{Op: op, Register: key, Data: data}
}

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func link(k expr.MetaKey, op expr.CmpOp, name string) match {
	return match{&expr.Meta{Key: k, Register: key}, equal(op, ifname(name))}
}

func from(name string) match    { return link(expr.MetaKeyIIFNAME, expr.CmpOpEq, name) }
func notFrom(name string) match { return link(expr.MetaKeyIIFNAME, expr.CmpOpNeq, name) }
func to(name string) match      { return link(expr.MetaKeyOIFNAME, expr.CmpOpEq, name) }

// The offsets of the addresses in an IPv4 header, and in an ARP packet for IPv4.
const (
	source      = 12
	destination = 16
	arpSender   = 14
	arpTarget   = 24
)

func field(offset, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}
}

func address(offset uint32, op expr.CmpOp, p netip.Prefix) match {
	mask := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), p.Bits()).Masked().Addr()
	return match{field(offset, key),
		&expr.Bitwise{SourceRegister: key, DestRegister: key, Len: 4, Mask: mask.AsSlice(), Xor: make([]byte, 4)},
		equal(op, p.Masked().Addr().AsSlice())}
}

func saddr(p netip.Prefix) match    { return address(source, expr.CmpOpEq, p) }
func daddr(p netip.Prefix) match    { return address(destination, expr.CmpOpEq, p) }
func notDaddr(p netip.Prefix) match { return address(destination, expr.CmpOpNeq, p) }

func bits(k expr.CtKey, mask uint32, op expr.CmpOp) match {
	return match{&expr.Ct{Key: k, Register: key},
		&expr.Bitwise{SourceRegister: key, DestRegister: key, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask),
			Xor: make([]byte, 4)},
		equal(op, make([]byte, 4))}
}

func fresh() match { return bits(expr.CtKeySTATE, expr.CtStateBitNEW, expr.CmpOpNeq) }
func known() match {
	return bits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, expr.CmpOpNeq)
}

const statusDNAT = 1 << 5 // IPS_DST_NAT

func redirected() match { return bits(expr.CtKeySTATUS, statusDNAT, expr.CmpOpNeq) }
func direct() match     { return bits(expr.CtKeySTATUS, statusDNAT, expr.CmpOpEq) }

// own matches packets to an address of this machine.
func own() match {
	return match{&expr.Fib{Register: key, ResultADDRTYPE: true, FlagDADDR: true},
		equal(expr.CmpOpEq, binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL))}
}

func protocol(n byte) match {
	return match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: key}, equal(expr.CmpOpEq, []byte{n})}
}

func dport(n uint16) match {
	return match{portTo(key), equal(expr.CmpOpEq, binaryutil.BigEndian.PutUint16(n))}
}

func portTo(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

func icmp(kind byte) match {
	return append(protocol(unix.IPPROTO_ICMP),
		&expr.Payload{DestRegister: key, Base: expr.PayloadBaseTransportHeader, Len: 1}, equal(expr.CmpOpEq, []byte{kind}))
}

// frontend loads the key of the frontend that a packet is for: addr if valid, else its destination, protocol and port.
func frontend(addr netip.Addr) match {
	first := field(destination, key)
	if addr.IsValid() {
		first = &expr.Immediate{Register: key, Data: addr.AsSlice()}
	}
	return match{first, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: key + 1}, portTo(key + 2)}
}

// service loads protocol and port.
func service() match {
	return match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: key}, portTo(key + 1)}
}

// insider loads protocol and port behind the number of a network.
func insider() match {
	return match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: key + 1}, portTo(key + 2)}
}

func in(s *nftables.Set) match {
	return match{&expr.Lookup{SourceRegister: key, SetName: s.Name, SetID: s.ID}}
}

func notIn(s *nftables.Set) match {
	return match{&expr.Lookup{SourceRegister: key, SetName: s.Name, SetID: s.ID, Invert: true}}
}

func mapped(s *nftables.Set, dest uint32) match {
	return match{&expr.Lookup{SourceRegister: key, DestRegister: dest, IsDestRegSet: true, SetName: s.Name, SetID: s.ID}}
}

func verdict(k expr.VerdictKind) match { return match{&expr.Verdict{Kind: k}} }

func accept() match     { return verdict(expr.VerdictAccept) }
func drop() match       { return verdict(expr.VerdictDrop) }
func leave() match      { return verdict(expr.VerdictReturn) }
func masquerade() match { return match{&expr.Masq{}} }

// refuse returns two rules: a reset for TCP, "port unreachable" for all else.
func refuse(parts ...match) []match {
	cond := rule(parts...)
	return []match{
		rule(protocol(unix.IPPROTO_TCP), cond, match{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}),
		rule(cond, match{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}}),
	}
}
