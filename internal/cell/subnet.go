package cell

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Last octets of the two machines in an allocated subnet.
const (
	firewallOctet = 10
	agentOctet    = 11
)

// Addresses is the private link of one instance.
type Addresses struct {
	Subnet          netip.Prefix
	Firewall, Agent netip.Addr
}

// allocate gives out the first free /24 of the pool first..last (both the
// network address of a /24), or takes the pinned pair when both are valid.
// taken are the subnets of the other instances.
func allocate(first, last, pinnedFirewall, pinnedAgent netip.Addr, taken map[string]State) (Addresses, error) {
	if pinnedFirewall.IsValid() != pinnedAgent.IsValid() {
		return Addresses{}, usageError("network.firewall_ip and network.agent_ip must be given together; set both or neither")
	}
	if pinnedFirewall.IsValid() {
		a := Addresses{Subnet: netip.PrefixFrom(pinnedFirewall, 24).Masked(), Firewall: pinnedFirewall, Agent: pinnedAgent}
		if err := checkAddresses(a.Subnet, a.Firewall, a.Agent); err != nil {
			return Addresses{}, usageError("network.firewall_ip and network.agent_ip: %w; a pinned pair must share one private /24", err)
		}
		if owner := ownerOf(a.Subnet, taken); owner != "" {
			return Addresses{}, usageError("subnet %v of the pinned addresses belongs to instance %q already; choose another pair", a.Subnet, owner)
		}
		return a, nil
	}
	if err := checkPool(first, last); err != nil {
		return Addresses{}, err
	}
	for net := first; net.Compare(last) <= 0; net = nextNet(net) {
		subnet := netip.PrefixFrom(net, 24)
		if !net.IsPrivate() {
			return Addresses{}, usageError("network.pool %v to %v leaves the private ranges at %v; use addresses of 10/8, 172.16/12 or 192.168/16", first, last, net)
		}
		if ownerOf(subnet, taken) == "" {
			return Addresses{Subnet: subnet, Firewall: withOctet(net, firewallOctet), Agent: withOctet(net, agentOctet)}, nil
		}
	}
	return Addresses{}, fmt.Errorf("allocating a subnet: every /24 of the pool %v to %v is taken by an instance; remove the directory of one that is not needed or enlarge network.pool", first, last)
}

func checkPool(first, last netip.Addr) error {
	for _, a := range []netip.Addr{first, last} {
		if !a.Is4() || a.As4()[3] != 0 || !a.IsPrivate() {
			return usageError("network.pool: %v is not the address of a private /24; write it like 192.168.100.0", a)
		}
	}
	if first.Compare(last) > 0 {
		return usageError("network.pool: %v is above %v; put the lower address first", first, last)
	}
	return nil
}

func nextNet(a netip.Addr) netip.Addr {
	b := a.As4()
	n := uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
	n++
	return netip.AddrFrom4([4]byte{byte(n >> 16), byte(n >> 8), byte(n), 0})
}

func withOctet(net netip.Addr, last byte) netip.Addr {
	b := net.As4()
	b[3] = last
	return netip.AddrFrom4(b)
}

// ownerOf is the first instance by name whose subnet overlaps subnet, or "".
func ownerOf(subnet netip.Prefix, states map[string]State) string {
	var owners []string
	for name, s := range states {
		if s.Subnet.Overlaps(subnet) {
			owners = append(owners, name)
		}
	}
	if len(owners) == 0 {
		return ""
	}
	return slices.Min(owners)
}

// checkConflict is an error that names both instances when another one has the
// subnet of name.
func checkConflict(name string, states map[string]State) error {
	mine, ok := states[name]
	if !ok {
		return errors.New("checking subnets: instance " + name + " has no state")
	}
	for other, s := range states {
		if other != name && s.Subnet.Overlaps(mine.Subnet) {
			pair := []string{name, other}
			slices.Sort(pair)
			return usageError("instances %q and %q both have subnet %v; move the directory of one of them away and create it again", pair[0], pair[1], mine.Subnet)
		}
	}
	return nil
}
