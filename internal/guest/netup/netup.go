//go:build linux

// Package netup gives a guest's interfaces their names, addresses and kernel
// settings. It is two steps, so that a ruleset can be loaded between them:
// Prepare leaves every interface down, and only Up lets packets through.
package netup

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

// Setting is one kernel parameter below /proc/sys.
type Setting struct{ Name, Value string }

// FirewallSettings close what the kernel does for strangers by itself. They
// hold for interfaces that appear later too ("default").
//
// Invariant: the firewall never forwards; what leaves it, its daemon sent
// (e2e "boundary", ATTACKS K1, E3 to E9).
func FirewallSettings() []Setting {
	settings := []Setting{
		{"net/ipv4/ip_forward", "0"},
		{"net/ipv4/tcp_fastopen", "0"},
		{"net/ipv4/tcp_syncookies", "1"},
		{"net/ipv4/tcp_rfc1337", "1"},
		{"net/ipv4/icmp_echo_ignore_broadcasts", "1"},
		{"net/ipv4/icmp_ignore_bogus_error_responses", "1"},
		{"net/ipv4/ip_local_port_range", "32768 60999"},
		{"net/core/bpf_jit_harden", "2"},
		{"kernel/unprivileged_bpf_disabled", "1"},
		{"kernel/kptr_restrict", "2"},
		{"kernel/dmesg_restrict", "1"},
		{"kernel/sysrq", "0"},
		{"kernel/core_pattern", "|/bin/false"}, // no core dumps: they would hold keys
		{"fs/suid_dumpable", "0"},
		{"vm/panic_on_oom", "0"},
	}
	return append(settings, InterfaceSettings("all", "default")...)
}

// InterfaceSettings are the part of FirewallSettings that each interface has a
// copy of. "all" and "default" are names too.
func InterfaceSettings(names ...string) []Setting {
	var settings []Setting
	for _, scope := range names {
		v4, v6 := "net/ipv4/conf/"+scope+"/", "net/ipv6/conf/"+scope+"/"
		settings = append(settings,
			Setting{v4 + "forwarding", "0"},
			Setting{v4 + "rp_filter", "1"},
			Setting{v4 + "accept_redirects", "0"},
			Setting{v4 + "secure_redirects", "0"},
			Setting{v4 + "send_redirects", "0"},
			Setting{v4 + "accept_source_route", "0"},
			Setting{v4 + "route_localnet", "0"},
			Setting{v4 + "arp_ignore", "2"}, // answer only for this interface's address, to its own subnet
			Setting{v4 + "arp_announce", "2"},
			Setting{v4 + "arp_filter", "1"},
			Setting{v4 + "arp_accept", "0"},
			Setting{v4 + "proxy_arp", "0"},
			Setting{v6 + "disable_ipv6", "1"},
			Setting{v6 + "accept_ra", "0"},
			Setting{v6 + "forwarding", "0"},
		)
	}
	return settings
}

// Apply writes settings below root, usually /proc/sys. Parameters that this
// kernel does not have are passed over when they are of IPv6 (a kernel without
// it needs none); every other failure is an error.
func Apply(root string, settings []Setting) error {
	var errs []error
	for _, s := range settings {
		err := os.WriteFile(filepath.Join(root, s.Name), []byte(s.Value), 0o644)
		if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(s.Name, "net/ipv6/") {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("setting %s to %q: %w", s.Name, s.Value, err))
		}
	}
	return errors.Join(errs...)
}

// Prepare finds the interfaces of n by MAC address, names them and gives them
// their addresses and neighbour entries. It leaves them down. It waits up to
// timeout for a card that has not appeared yet.
func Prepare(n guestcfg.Network, timeout time.Duration) error {
	for name, i := range interfaces(n) {
		link, err := find(i.MAC, timeout)
		if err != nil {
			return fmt.Errorf("finding interface %q: %w", name, err)
		}
		if err := netlink.LinkSetDown(link); err != nil {
			return fmt.Errorf("taking interface %q down: %w", name, err)
		}
		if link.Attrs().Name != name {
			if err := netlink.LinkSetName(link, name); err != nil {
				return fmt.Errorf("naming interface %q: %w", name, err)
			}
		}
		if i.MTU != 0 {
			if err := netlink.LinkSetMTU(link, i.MTU); err != nil {
				return fmt.Errorf("setting MTU %d of %q: %w", i.MTU, name, err)
			}
		}
		addr, err := netlink.ParseAddr(i.Address)
		if err != nil {
			return fmt.Errorf("parsing address of %q: %w", name, err)
		}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("addressing %q: %w", name, err)
		}
	}
	return nil
}

// Up brings lo and the interfaces of n up, pins the firewall's neighbour entry
// for its agent, and sets the default route.
func Up(n guestcfg.Network) error {
	if err := up("lo"); err != nil {
		return err
	}
	for name, i := range interfaces(n) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding interface %q: %w", name, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("bringing %q up: %w", name, err)
		}
		if i.Gateway != "" {
			route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(i.Gateway)}
			if err := netlink.RouteReplace(route); err != nil {
				return fmt.Errorf("routing through %s on %q: %w", i.Gateway, name, err)
			}
		}
	}
	return pinPeer(n)
}

// pinPeer makes the neighbour entry of the other machine permanent.
//
// Invariant: the firewall never learns from the wire where its agent is, so a
// forged ARP answer moves nothing (ATTACKS E6, e2e "boundary").
func pinPeer(n guestcfg.Network) error {
	link, err := netlink.LinkByName(guestcfg.InterfaceCell)
	if err != nil {
		return fmt.Errorf("finding interface %q: %w", guestcfg.InterfaceCell, err)
	}
	mac, err := net.ParseMAC(n.PeerMAC)
	if err != nil {
		return fmt.Errorf("parsing the peer's MAC: %w", err)
	}
	neigh := &netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: net.ParseIP(n.PeerAddress), HardwareAddr: mac,
	}
	if err := netlink.NeighSet(neigh); err != nil {
		return fmt.Errorf("pinning neighbour %s: %w", n.PeerAddress, err)
	}
	return nil
}

func interfaces(n guestcfg.Network) map[string]guestcfg.Interface {
	all := map[string]guestcfg.Interface{guestcfg.InterfaceCell: n.Cell}
	if n.Uplink != nil {
		all[guestcfg.InterfaceUplink] = *n.Uplink
	}
	return all
}

func find(mac string, timeout time.Duration) (netlink.Link, error) {
	for deadline := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		links, err := netlink.LinkList()
		if err != nil {
			return nil, err
		}
		for _, link := range links {
			if strings.EqualFold(link.Attrs().HardwareAddr.String(), mac) {
				return link, nil
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no network card has the address %s", mac)
		}
	}
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding interface %q: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing %q up: %w", name, err)
	}
	return nil
}

// AgentSettings turn IPv6 off, which nothing on the link speaks. They are
// comfort, not boundary: root in the agent can change them, and the firewall
// does not rely on them.
func AgentSettings() []Setting {
	return []Setting{
		{"net/ipv6/conf/all/disable_ipv6", "1"},
		{"net/ipv6/conf/default/disable_ipv6", "1"},
	}
}
