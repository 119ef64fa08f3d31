package cell

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/rootcell-ai/rootcell/internal/probe"
)

// firewall checks what the firewall says of itself before and after the probes.
func (v *verification) firewall(before, after probe.Firewall) {
	v.each(Check{Where: "firewall", Name: "drops-by-default", OK: after.DropsByDefault, Detail: pick(after.DropsByDefault, "input, forward and output drop what no rule accepts", after.Ruleset)})
	v.each(Check{Where: "firewall", Name: "forwards-nothing", OK: !after.IPForward && after.Counters["forwarded"] == 0,
		Detail: fmt.Sprintf("ip_forward %v, %d packets dropped that were to be forwarded", after.IPForward, after.Counters["forwarded"])})
	v.each(v.listeners(after.Listeners))
	// The probes of the agent must show on the firewall's side of the link, or
	// they proved nothing.
	var risen []string
	for _, name := range []string{"agent_elsewhere", "agent_tcp", "agent_udp", "agent_other", "agent_spoofed", "agent_ipv6"} {
		if n := after.Counters[name] - before.Counters[name]; after.Counters[name] > before.Counters[name] {
			risen = append(risen, fmt.Sprintf("%s %d", name, n))
		}
	}
	v.each(Check{Where: "firewall", Name: "probes-refused", OK: len(risen) > 0,
		Detail: pick(len(risen) > 0, "refused meanwhile: "+strings.Join(risen, ", "), "the packet filter saw none of the probes")})
	leaked := after.Counters["out_agent"] - before.Counters["out_agent"]
	v.each(Check{Where: "firewall", Name: "daemon-stays-out", OK: leaked == 0,
		Detail: fmt.Sprintf("%d attempts of the firewall's programs towards the agent's side", leaked)})
}

func pick(ok bool, yes, no string) string {
	if ok {
		return yes
	}
	return no
}

// listeners checks that on the firewall only what must listens.
func (v *verification) listeners(found []probe.Listener) Check {
	check := Check{Where: "firewall", Name: "listeners", OK: true}
	own := netip.MustParseAddr(v.request.Firewall)
	var unexpected []string
	for _, l := range found {
		addr, err := netip.ParseAddrPort(l.Address)
		if err != nil || !expectedListener(l.Network, addr, own) {
			unexpected = append(unexpected, l.Network+" "+l.Address)
		}
	}
	slices.Sort(unexpected)
	check.Detail = fmt.Sprintf("%d sockets, all expected", len(found))
	if len(unexpected) > 0 {
		check.OK, check.Detail = false, "unexpected: "+strings.Join(unexpected, ", ")
	}
	return check
}

func expectedListener(network string, at netip.AddrPort, own netip.Addr) bool {
	addr := at.Addr().Unmap()
	switch {
	case addr.IsLoopback():
		return true
	case at.Port() == 22 && network == "tcp":
		return addr.Is4() // the ruleset keeps it from the agent's side
	case addr != own:
		// Sockets of the daemon's own queries upstream are bound to ports above
		// the reserved ones.
		return network == "udp" && addr.Is4() && at.Port() >= 1024
	case network == "udp":
		return at.Port() == dnsPort
	}
	return at.Port() == dnsPort || at.Port() == httpsPort || at.Port() == connectPort
}

// sinks are listeners of this host that nothing in the cell may reach. Only
// connections that come from this host itself count, as those of its machines
// would; others are somebody's on the network.
type sinks struct {
	listeners []net.Listener
	local     []netip.Addr

	mu   sync.Mutex
	seen []string
}

// hostInUserNetwork is where QEMU's user-mode network puts the host's loopback.
var hostInUserNetwork = netip.MustParseAddr("10.0.2.2")

func listenSinks() (*sinks, error) {
	s := &sinks{local: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing this host's addresses: %w", err)
	}
	for _, a := range all {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() && !prefix.Addr().IsLoopback() {
			s.local = append(s.local, prefix.Addr())
		}
	}
	for _, addr := range s.local {
		listener, err := net.Listen("tcp4", netip.AddrPortFrom(addr, 0).String())
		if err != nil {
			continue
		}
		s.listeners = append(s.listeners, listener)
		go s.accept(listener)
	}
	if len(s.listeners) == 0 {
		return nil, errors.New("no listener for the probes could be opened on this host")
	}
	return s, nil
}

func (s *sinks) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if from, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil && slices.Contains(s.local, from.Addr()) {
			s.mu.Lock()
			s.seen = append(s.seen, l.Addr().String())
			s.mu.Unlock()
		}
		conn.Close()
	}
}

// targets are the sinks as the machines could try to reach them.
func (s *sinks) targets() []string {
	var targets []string
	for _, l := range s.listeners {
		addr, err := netip.ParseAddrPort(l.Addr().String())
		if err != nil {
			continue
		}
		if addr.Addr().IsLoopback() {
			addr = netip.AddrPortFrom(hostInUserNetwork, addr.Port())
		}
		targets = append(targets, addr.String())
	}
	return targets
}

func (s *sinks) check() Check {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) > 0 {
		return Check{Where: "host", Name: "nothing-arrived", Detail: "connections arrived at " + strings.Join(s.seen, ", ")}
	}
	return Check{Where: "host", Name: "nothing-arrived", OK: true, Detail: fmt.Sprintf("%d listeners of this host saw nothing of the cell", len(s.listeners))}
}

func (s *sinks) close() {
	for _, l := range s.listeners {
		l.Close()
	}
}
