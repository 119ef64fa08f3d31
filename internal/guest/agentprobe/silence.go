//go:build linux

package agentprobe

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Addresses outside that probes aim at: the user-mode network of the firewall's
// uplink, public resolvers, and addresses reserved for documentation.
var (
	gateway      = netip.MustParseAddr("10.0.2.2")
	gatewayDNS   = netip.MustParseAddr("10.0.2.3")
	uplinkSelf   = netip.MustParseAddr("10.0.2.15")
	publicDNS    = netip.MustParseAddr("1.1.1.1")
	nowhere      = netip.MustParseAddr("192.0.2.1")
	nowhereElse  = netip.MustParseAddr("198.51.100.7")
	metadataAWS  = netip.MustParseAddr("169.254.169.254")
	metadataAli  = netip.MustParseAddr("100.100.100.200")
	metadataAzur = netip.MustParseAddr("168.63.129.16")
	loopback     = netip.MustParseAddr("127.0.0.1")
)

// Each probe sends from a port of its own, so that it tells its answers from
// those of the others.
const (
	portScan = 40100 + iota
	portReroute
	portReaddress
	portFrames
	portICMP
	portQUIC
	portDNS
	portCleartext
	portOther
	portHost
	portMetadata
)

// quiet sends frames, twice, and listens. judge returns what is wrong with a
// frame, or nothing; the first wrong one is the error.
func (p *prober) quiet(ctx context.Context, frames [][]byte, judge func(frame []byte) string) error {
	w, err := p.link.open()
	if err != nil {
		return err
	}
	defer w.close()
	var sending sync.WaitGroup
	var sendErr error
	sending.Go(func() {
		for range 2 { // a lost frame must not pass for a refused one
			for i, frame := range frames {
				if sendErr = w.send(frame); sendErr != nil {
					return
				}
				if i%16 == 15 {
					time.Sleep(4 * time.Millisecond) // the link's queue is short
				}
			}
		}
	})
	var wrong string
	err = w.listen(ctx, silence, func(frame []byte) bool {
		wrong = judge(frame)
		return wrong == ""
	})
	sending.Wait()
	switch {
	case wrong != "":
		return fmt.Errorf("%s", wrong)
	case err != nil:
		return err
	}
	return sendErr
}

// unanswered sends one SYN to each target by way of the firewall's hardware
// address. The error names one that accepted.
func (p *prober) unanswered(ctx context.Context, port uint16, targets []netip.AddrPort) (string, error) {
	source := netip.AddrPortFrom(p.link.addr.Addr(), port)
	var frames [][]byte
	for _, target := range targets {
		frames = append(frames, ethernet(p.link.firewallMAC, p.link.mac, etherIPv4, tcpSyn(source, target)))
	}
	refused := map[netip.AddrPort]bool{}
	err := p.quiet(ctx, frames, func(frame []byte) string {
		got, ok := parseIPv4(frame)
		if !ok || got.to != source {
			return ""
		}
		if got.accepted() {
			return got.from.String() + " accepted a connection"
		}
		refused[got.from] = true
		return ""
	})
	return fmt.Sprintf("%d destinations, none accepted, %d refused at once", len(targets), len(refused)), err
}

func targets(addrs []netip.Addr, ports ...uint16) []netip.AddrPort {
	var all []netip.AddrPort
	for _, addr := range addrs {
		for _, port := range ports {
			all = append(all, netip.AddrPortFrom(addr, port))
		}
	}
	return all
}

func (p *prober) reroute(ctx context.Context) (string, error) {
	addrs := []netip.Addr{gateway, gatewayDNS, uplinkSelf, publicDNS, nowhere, nowhereElse, loopback}
	return p.unanswered(ctx, portReroute, targets(addrs, 22, 25, 53, 80, 8080, 8443))
}

func (p *prober) cleartext(ctx context.Context) (string, error) {
	return p.unanswered(ctx, portCleartext, targets([]netip.Addr{p.firewall, publicDNS, nowhere, nowhereElse}, 80, 8000, 8008))
}

func (p *prober) otherPorts(ctx context.Context) (string, error) {
	return p.unanswered(ctx, portOther, targets([]netip.Addr{publicDNS, nowhere},
		21, 22, 23, 25, 110, 143, 389, 445, 465, 587, 853, 993, 1080, 3128, 3306, 3389, 5222, 5432, 6379, 6667, 8443, 9418))
}

func (p *prober) metadata(ctx context.Context) (string, error) {
	return p.unanswered(ctx, portMetadata, targets([]netip.Addr{metadataAWS, metadataAli, metadataAzur}, 80, 8080))
}

func (p *prober) hostServices(ctx context.Context) (string, error) {
	all := targets([]netip.Addr{gateway, uplinkSelf}, 22, 80, 111, 139, 445, 631, 2049, 2375, 3000, 5000, 5900, 8000, 8080, 8443, 9090)
	for _, text := range p.req.Unreachable {
		target, err := netip.ParseAddrPort(text)
		if err != nil {
			return "", fmt.Errorf("reading the request: unreachable: %w", err)
		}
		if target.Port() == 443 {
			continue // redirected to the firewall, which accepts in its own name
		}
		all = append(all, target)
	}
	return p.unanswered(ctx, portHost, all)
}

// firewallPorts scans the firewall itself: the agent needs two of its ports.
func (p *prober) firewallPorts(ctx context.Context) (string, error) {
	var ports []uint16
	for port := uint16(1); port <= 1024; port++ {
		ports = append(ports, port)
	}
	ports = append(ports, 1080, 2222, 2375, 3000, 3128, 5000, 5353, 6060, 8000, 8080, 8081, 8443, 8888, 9000, 9090, 9100, 50051)
	ports = slices.DeleteFunc(ports, func(port uint16) bool { return port == 443 })
	source := netip.AddrPortFrom(p.link.addr.Addr(), portScan)
	var frames [][]byte
	for _, port := range ports {
		frames = append(frames, ethernet(p.link.firewallMAC, p.link.mac, etherIPv4, tcpSyn(source, netip.AddrPortFrom(p.firewall, port))))
	}
	open := map[uint16]bool{}
	err := p.quiet(ctx, frames, func(frame []byte) string {
		got, ok := parseIPv4(frame)
		if !ok || got.to != source || !got.accepted() {
			return ""
		}
		open[got.from.Port()] = true
		if port := got.from.Port(); port != 53 && port != 8080 {
			return fmt.Sprintf("the firewall's port %d accepts connections of the agent", port)
		}
		return ""
	})
	return fmt.Sprintf("%d ports of the firewall tried, %d open (53 and 8080 may be)", len(ports), len(open)), err
}

// readdress sends under other addresses, with this card's hardware address and
// with another.
func (p *prober) readdress(ctx context.Context) (string, error) {
	other := net.HardwareAddr{0x02, 0x72, 0x6f, 0x6f, 0x74, 0x77}
	sources := []netip.Addr{p.otherHost(), uplinkSelf, netip.MustParseAddr("10.0.2.77"), loopback, p.firewall, publicDNS}
	forged := map[netip.Addr]bool{}
	var frames [][]byte
	for _, source := range sources {
		forged[source] = true
		for _, mac := range []net.HardwareAddr{p.link.mac, other} {
			for _, target := range targets([]netip.Addr{p.firewall, nowhere, gateway}, 53, 80, 443, 8080) {
				frames = append(frames, ethernet(p.link.firewallMAC, mac, etherIPv4, tcpSyn(netip.AddrPortFrom(source, portReaddress), target)))
			}
			frames = append(frames, ethernet(p.link.firewallMAC, mac, etherIPv4,
				udp(netip.AddrPortFrom(source, portReaddress), netip.AddrPortFrom(p.firewall, 53), p.query())))
		}
	}
	err := p.quiet(ctx, frames, func(frame []byte) string {
		if len(frame) >= 42 && binary.BigEndian.Uint16(frame[12:]) == etherARP && binary.BigEndian.Uint16(frame[20:]) == 1 {
			if who, _ := netip.AddrFromSlice(frame[38:42]); forged[who] && who != p.firewall {
				return fmt.Sprintf("the firewall looks for the forged address %s", who)
			}
		}
		if got, ok := parseIPv4(frame); ok && got.to.Port() == portReaddress && forged[got.to.Addr()] {
			return fmt.Sprintf("%s answered the forged address %s", got.from, got.to.Addr())
		}
		return ""
	})
	return fmt.Sprintf("%d forged source addresses, none answered", len(sources)), err
}

// otherHost is an address of the link's network that belongs to neither machine.
func (p *prober) otherHost() netip.Addr {
	addr := p.link.addr.Masked().Addr().Next()
	for addr == p.link.addr.Addr() || addr == p.firewall {
		addr = addr.Next()
	}
	return addr
}

// rawFrames sends to hardware addresses that are not the firewall's: those of
// a user-mode network's gateway, groups, everybody, and under a VLAN tag.
func (p *prober) rawFrames(ctx context.Context) (string, error) {
	source := netip.AddrPortFrom(p.link.addr.Addr(), portFrames)
	macs := []net.HardwareAddr{
		{0x52, 0x55, 10, 0, 2, 2}, {0x52, 0x55, 10, 0, 2, 3}, {0x52, 0x56, 0, 0, 0, 2}, {0x52, 0x54, 0, 0x12, 0x34, 0x56},
		{0x01, 0x00, 0x5e, 0, 0, 0xfb}, {0x01, 0x80, 0xc2, 0, 0, 0x0e}, broadcast,
	}
	var frames [][]byte
	for _, mac := range macs {
		for _, target := range targets([]netip.Addr{gateway, nowhere}, 22, 80) {
			frames = append(frames, ethernet(mac, p.link.mac, etherIPv4, tcpSyn(source, target)))
		}
		frames = append(frames, ethernet(mac, p.link.mac, etherIPv4, udp(source, netip.AddrPortFrom(gatewayDNS, 53), p.query())))
	}
	tagged := append([]byte{0, 7, etherIPv4 >> 8, etherIPv4 & 0xff}, tcpSyn(source, netip.AddrPortFrom(p.firewall, 8080))...)
	frames = append(frames, ethernet(p.link.firewallMAC, p.link.mac, 0x8100, tagged))
	err := p.quiet(ctx, frames, func(frame []byte) string {
		if !bytes.Equal(frame[6:12], p.link.firewallMAC) {
			return fmt.Sprintf("a third machine, %s, is on the link", net.HardwareAddr(frame[6:12]))
		}
		if got, ok := parseIPv4(frame); ok && got.to == source && (got.accepted() || got.proto == protoUDP) {
			return got.from.String() + " answered"
		}
		return ""
	})
	return fmt.Sprintf("%d frames to others than the firewall, no answer, nobody else on the link", len(frames)), err
}

// query is a DNS question in wire format.
func (p *prober) query() []byte {
	name := p.req.AllowedDNS
	if name == "" {
		name = "example.com"
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	wire, err := m.Pack()
	if err != nil {
		return nil
	}
	return wire
}
