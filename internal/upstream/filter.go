package upstream

import (
	"fmt"
	"net/netip"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/specialaddr"
)

// ClassOwn is the class of addresses in Config.Deny; the other classes are those
// of package specialaddr.
const ClassOwn = "own"

// filter decides which addresses may be answered and dialled.
type filter struct {
	allow, deny []netip.Prefix
}

// check returns the class of an address that is not to be used.
//
// Invariant: own addresses stay out even when allow_private covers them
// (TestOwnAddressesAreNeverAnswers).
func (f *filter) check(addr netip.Addr) (class string, bad bool) {
	addr = addr.Unmap()
	for _, p := range f.deny {
		if p.Contains(addr) {
			return ClassOwn, true
		}
	}
	class, special := specialaddr.Check(addr)
	if !special {
		return "", false
	}
	for _, p := range f.allow {
		if p.Contains(addr) {
			return "", false
		}
	}
	return class, true
}

// SpecialAddressError means that a name resolves to nothing but addresses that
// the firewall never connects to.
type SpecialAddressError struct {
	Name  hostname.Name
	Addr  netip.Addr // the first one
	Class string     // ClassOwn or a class of package specialaddr
}

func (e *SpecialAddressError) Error() string {
	return fmt.Sprintf("resolving %q: its address %s is special (%s) and not in allow_private", e.Name, e.Addr, e.Class)
}

// NotFoundError means that a name has no IPv4 address.
type NotFoundError struct {
	Name  hostname.Name
	Rcode int // response code of the DNS: 0 when the name exists, 3 when not
}

func (e *NotFoundError) Error() string {
	switch e.Rcode {
	case rcodeSuccess:
		return fmt.Sprintf("resolving %q: the name has no IPv4 address", e.Name)
	case rcodeNXDomain:
		return fmt.Sprintf("resolving %q: the name does not exist", e.Name)
	}
	return fmt.Sprintf("resolving %q: the resolver answers with code %d", e.Name, e.Rcode)
}
