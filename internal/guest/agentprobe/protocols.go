//go:build linux

package agentprobe

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// neighbours asks for every address of the network, and for some that only a
// leak would have.
func (p *prober) neighbours(ctx context.Context) (string, error) {
	self := p.link.addr.Addr()
	var asked []netip.Addr
	for addr := p.link.addr.Masked().Addr(); p.link.addr.Contains(addr) && len(asked) < 1024; addr = addr.Next() {
		if addr != self && addr != p.firewall {
			asked = append(asked, addr)
		}
	}
	asked = append(asked, gateway, gatewayDNS, uplinkSelf, metadataAWS, publicDNS)
	var frames [][]byte
	for _, addr := range asked {
		frames = append(frames, arpRequest(p.link.mac, self, addr))
	}
	err := p.quiet(ctx, frames, func(frame []byte) string {
		if who, mac, ok := arpReply(frame); ok && who != p.firewall {
			return fmt.Sprintf("%s has the address %s", mac, who)
		}
		if !bytes.Equal(frame[6:12], p.link.firewallMAC) {
			return fmt.Sprintf("a third machine, %s, is on the link", net.HardwareAddr(frame[6:12]))
		}
		return ""
	})
	return fmt.Sprintf("%d addresses asked for, only the firewall is there", len(asked)), err
}

func (p *prober) icmp(ctx context.Context) (string, error) {
	all := []netip.Addr{p.firewall, gateway, publicDNS, nowhere}
	var frames [][]byte
	for _, to := range all {
		frames = append(frames, ethernet(p.link.firewallMAC, p.link.mac, etherIPv4, icmpEcho(p.link.addr.Addr(), to, portICMP)))
	}
	err := p.quiet(ctx, frames, func(frame []byte) string {
		if got, ok := parseIPv4(frame); ok && got.proto == protoICMP && got.icmpType == 0 {
			return got.from.Addr().String() + " answered a ping"
		}
		return ""
	})
	return fmt.Sprintf("%d addresses pinged, none answered", len(all)), err
}

// udpSilence sends a datagram to each target; any datagram back is wrong.
func (p *prober) udpSilence(ctx context.Context, port uint16, payload []byte, to []netip.AddrPort) (string, error) {
	source := netip.AddrPortFrom(p.link.addr.Addr(), port)
	var frames [][]byte
	for _, target := range to {
		frames = append(frames, ethernet(p.link.firewallMAC, p.link.mac, etherIPv4, udp(source, target, payload)))
	}
	err := p.quiet(ctx, frames, func(frame []byte) string {
		if got, ok := parseIPv4(frame); ok && got.proto == protoUDP && got.to == source {
			return got.from.String() + " answered"
		}
		return ""
	})
	return fmt.Sprintf("%d destinations, none answered", len(to)), err
}

func (p *prober) quic(ctx context.Context) (string, error) {
	// A long header of a version that nobody has: a QUIC server answers it
	// with version negotiation (RFC 9000, section 6) if the datagram is large.
	initial := make([]byte, 1200)
	copy(initial, []byte{0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 'r', 'o', 'o', 't', 'c', 'e', 'l', 'l', 0})
	return p.udpSilence(ctx, portQUIC, initial, targets([]netip.Addr{p.firewall, publicDNS, nowhere}, 443, 8443))
}

func (p *prober) dnsElsewhere(ctx context.Context) (string, error) {
	resolvers := []netip.Addr{gatewayDNS, publicDNS, netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("9.9.9.9")}
	to := append(targets(resolvers, 53, 853), targets([]netip.Addr{p.firewall}, 5353, 853)...)
	return p.udpSilence(ctx, portDNS, p.query(), to)
}

// dhcp looks for a server that would hand out another address or route.
func (p *prober) dhcp(ctx context.Context) (string, error) {
	discover := make([]byte, 300)
	copy(discover, []byte{1, 1, 6, 0, 'c', 'e', 'l', 'l'})
	discover[10] = 0x80 // answer by broadcast
	copy(discover[28:], p.link.mac)
	copy(discover[236:], []byte{99, 130, 83, 99, 53, 1, 1, 255})
	from := netip.AddrPortFrom(netip.IPv4Unspecified(), 68)
	to := netip.AddrPortFrom(netip.MustParseAddr("255.255.255.255"), 67)
	frames := [][]byte{ethernet(broadcast, p.link.mac, etherIPv4, udp(from, to, discover))}
	err := p.quiet(ctx, frames, func(frame []byte) string {
		if got, ok := parseIPv4(frame); ok && got.proto == protoUDP && got.to.Port() == 68 {
			return got.from.String() + " offers an address"
		}
		return ""
	})
	return "nobody offers an address", err
}

// ipv6 calls for every host and every router of the link.
func (p *prober) ipv6(ctx context.Context) (string, error) {
	source := netip.MustParseAddr("fe80::726f:6f74:6365:6c6c")
	everybody, routers := netip.MustParseAddr("ff02::1"), netip.MustParseAddr("ff02::2")
	frames := [][]byte{
		p.icmp6(source, everybody, []byte{128, 0, 0, 0, 0x72, 0x6f, 0, 1}), // echo request
		p.icmp6(source, routers, []byte{133, 0, 0, 0, 0, 0, 0, 0}),         // router solicitation
	}
	err := p.quiet(ctx, frames, func(frame []byte) string {
		if binary.BigEndian.Uint16(frame[12:]) == etherIPv6 {
			return fmt.Sprintf("%s speaks IPv6", net.HardwareAddr(frame[6:12]))
		}
		return ""
	})
	return "nobody speaks IPv6 on the link", err
}

// icmp6 is a multicast ICMPv6 frame (RFC 4443; RFC 2464 for the group's
// hardware address).
func (p *prober) icmp6(from, to netip.Addr, body []byte) []byte {
	group := to.As16()
	pseudo := append(append([]byte{}, from.AsSlice()...), to.AsSlice()...)
	pseudo = append(pseudo, 0, 0, 0, byte(len(body)), 0, 0, 0, 58)
	binary.BigEndian.PutUint16(body[2:], checksum(append(pseudo, body...)))
	h := []byte{0x60, 0, 0, 0, 0, byte(len(body)), 58, 255}
	h = append(append(h, from.AsSlice()...), to.AsSlice()...)
	mac := net.HardwareAddr{0x33, 0x33, group[12], group[13], group[14], group[15]}
	return ethernet(mac, p.link.mac, etherIPv6, append(h, body...))
}
