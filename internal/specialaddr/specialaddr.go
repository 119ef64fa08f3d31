// Package specialaddr tells addresses of the public internet from all others.
//
// A host name on an allowlist says nothing about where its records point. The
// firewall therefore looks at every address just before it is answered or
// dialled, and what this package calls special is neither. The classification is
// pure: no I/O, no state, safe for concurrent use.
package specialaddr

import (
	"encoding/binary"
	"net/netip"
)

// Classes that Check returns. They are stable: the audit log and the texts shown
// to users carry them.
const (
	ClassInvalid       = "invalid"
	ClassZoned         = "zoned"
	ClassUnspecified   = "this-network"
	ClassLoopback      = "loopback"
	ClassPrivate       = "private"
	ClassShared        = "shared" // carrier-grade NAT, RFC 6598
	ClassLinkLocal     = "link-local"
	ClassMetadata      = "metadata"
	ClassProtocol      = "protocol-assignment"
	ClassDocumentation = "documentation"
	ClassBenchmarking  = "benchmarking"
	ClassMulticast     = "multicast"
	ClassReserved      = "reserved"
	ClassBroadcast     = "broadcast"
	ClassTransition    = "transition" // a v4 address carried inside a v6 one
	ClassDiscard       = "discard"
)

type range4 struct {
	first, last uint32
	class       string
}

type range6 struct {
	prefix netip.Prefix
	class  string
}

// Check classifies addr. special is false only for addresses of the public
// internet; class is then empty. The zero Addr and zoned addresses are special.
//
// Addresses that carry an IPv4 address (v4-mapped, v4-compatible, NAT64, 6to4,
// Teredo, ISATAP) get the class of the address inside when that one is special.
//
// Invariant: an address is public only if every address that can be unpacked
// from it is (TestCheckUnpacksEmbeddedAddresses).
func Check(addr netip.Addr) (class string, special bool) {
	if !addr.IsValid() {
		return ClassInvalid, true
	}
	if addr.Zone() != "" {
		return ClassZoned, true
	}
	if addr = addr.Unmap(); addr.Is4() {
		return check4(addr)
	}
	return check6(addr)
}

func check4(addr netip.Addr) (string, bool) {
	b := addr.As4()
	n := binary.BigEndian.Uint32(b[:])
	for _, r := range table4 {
		if n < r.first {
			break
		}
		if n <= r.last {
			return r.class, true
		}
	}
	return "", false
}

func check6(addr netip.Addr) (string, bool) {
	if class, special := checkEmbedded(addr.As16()); special {
		return class, true
	}
	for _, r := range table6 {
		if r.prefix.Contains(addr) {
			return r.class, true
		}
	}
	if !globalUnicast.Contains(addr) {
		return ClassReserved, true
	}
	return "", false
}

// checkEmbedded classifies the IPv4 address that a transition format carries.
// The formats that say so are refused later by table6 even when the address in
// them is public; ISATAP can hide below any prefix and is refused only when what
// it hides is special.
func checkEmbedded(b [16]byte) (string, bool) {
	var inner [][4]byte
	switch {
	case compatible.Contains(netip.AddrFrom16(b)):
		if n := binary.BigEndian.Uint32(b[12:]); n <= 1 {
			return table6[n].class, true // :: and ::1
		}
		inner = append(inner, [4]byte(b[12:16]))
	case nat64.Contains(netip.AddrFrom16(b)), nat64Local.Contains(netip.AddrFrom16(b)):
		inner = append(inner, [4]byte(b[12:16]))
	case sixToFour.Contains(netip.AddrFrom16(b)):
		inner = append(inner, [4]byte(b[2:6]))
	case teredo.Contains(netip.AddrFrom16(b)):
		// RFC 4380 section 4: the server's address, then the client's, inverted.
		inner = append(inner, [4]byte(b[4:8]), [4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
	}
	// RFC 5214 section 6.1: interface identifier [02]00:5efe:a.b.c.d.
	if (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		inner = append(inner, [4]byte(b[12:16]))
	}
	for _, v4 := range inner {
		if class, special := check4(netip.AddrFrom4(v4)); special {
			return class, true
		}
	}
	return "", false
}
