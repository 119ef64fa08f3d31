//go:build linux

package agentprobe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17

	tcpSYN = 0x02
	tcpACK = 0x10
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// link is the agent's only network link.
type link struct {
	index       int
	mac         net.HardwareAddr
	addr        netip.Prefix
	firewallMAC net.HardwareAddr
}

// findLink describes the card, and asks the firewall for its hardware address.
func findLink(firewall netip.Addr) (link, error) {
	card, err := net.InterfaceByName(guestcfg.InterfaceCell)
	if err != nil {
		return link{}, fmt.Errorf("finding the link %q: %w", guestcfg.InterfaceCell, err)
	}
	l := link{index: card.Index, mac: card.HardwareAddr}
	addrs, err := card.Addrs()
	if err != nil {
		return link{}, fmt.Errorf("reading the link's addresses: %w", err)
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Contains(firewall) {
			l.addr = prefix
		}
	}
	if !l.addr.IsValid() {
		return link{}, fmt.Errorf("the link %q has no address in the firewall's network", guestcfg.InterfaceCell)
	}
	wire, err := l.open()
	if err != nil {
		return link{}, err
	}
	defer wire.close()
	for range 3 {
		if err := wire.send(arpRequest(l.mac, l.addr.Addr(), firewall)); err != nil {
			return link{}, err
		}
		err = wire.listen(context.Background(), time.Second, func(frame []byte) bool {
			if who, mac, ok := arpReply(frame); ok && who == firewall {
				l.firewallMAC = mac
				return false
			}
			return true
		})
		if err != nil {
			return link{}, err
		}
		if l.firewallMAC != nil {
			return l, nil
		}
	}
	return link{}, fmt.Errorf("the firewall %s does not answer on the link", firewall)
}

// wire is a raw socket on the link.
type wire struct {
	file *os.File
	l    link
}

func (l link) open() (*wire, error) {
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // network byte order
	// Without a protocol the socket receives nothing (packet(7)) until it is bound: a forged frame of another probe that
	// it caught before it ignores those would be taken for a third machine's.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a raw socket: %w", err)
	}
	// What other probes send, under forged addresses too, is not an answer.
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("setting up a raw socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.index}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("binding a raw socket: %w", err)
	}
	return &wire{file: os.NewFile(uintptr(fd), "link"), l: l}, nil
}

func (w *wire) close() { w.file.Close() }

func (w *wire) send(frame []byte) error {
	if _, err := w.file.Write(frame); err != nil {
		return fmt.Errorf("sending a frame: %w", err)
	}
	return nil
}

// listen calls each with every frame that another machine sent, until each
// returns false, wait is over or ctx ends; these are no errors.
func (w *wire) listen(ctx context.Context, wait time.Duration, each func(frame []byte) bool) error {
	deadline := time.Now().Add(wait)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	if err := w.file.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("reading frames: %w", err)
	}
	buf := make([]byte, 65536)
	for {
		n, err := w.file.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading frames: %w", err)
		}
		if frame := buf[:n]; n >= 14 && !bytes.Equal(frame[6:12], w.l.mac) && !each(frame) {
			return nil
		}
	}
}

func ethernet(to, from net.HardwareAddr, kind uint16, payload []byte) []byte {
	frame := append(append(append([]byte{}, to...), from...), byte(kind>>8), byte(kind))
	frame = append(frame, payload...)
	for len(frame) < 60 {
		frame = append(frame, 0)
	}
	return frame
}

func arpRequest(mac net.HardwareAddr, from, who netip.Addr) []byte {
	p := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	p = append(append(p, mac...), from.AsSlice()...)
	p = append(append(p, make([]byte, 6)...), who.AsSlice()...)
	return ethernet(broadcast, mac, etherARP, p)
}

// arpReply returns who answered an ARP request.
func arpReply(frame []byte) (who netip.Addr, mac net.HardwareAddr, ok bool) {
	if len(frame) < 42 || binary.BigEndian.Uint16(frame[12:]) != etherARP || binary.BigEndian.Uint16(frame[20:]) != 2 {
		return netip.Addr{}, nil, false
	}
	who, _ = netip.AddrFromSlice(frame[28:32])
	return who, append(net.HardwareAddr{}, frame[22:28]...), true
}

// ipv4 wraps a payload whose checksum at sumAt covers the pseudo header; a
// negative sumAt leaves it alone.
func ipv4(proto byte, from, to netip.Addr, payload []byte, sumAt int) []byte {
	if sumAt >= 0 {
		pseudo := append(append([]byte{}, from.AsSlice()...), to.AsSlice()...)
		pseudo = append(pseudo, 0, proto, byte(len(payload)>>8), byte(len(payload)))
		binary.BigEndian.PutUint16(payload[sumAt:], checksum(append(pseudo, payload...)))
	}
	total := 20 + len(payload)
	h := []byte{0x45, 0, byte(total >> 8), byte(total), 0x52, 0x43, 0, 0, 64, proto, 0, 0}
	h = append(append(h, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

func tcpSyn(from, to netip.AddrPort) []byte {
	p := make([]byte, 20)
	binary.BigEndian.PutUint16(p, from.Port())
	binary.BigEndian.PutUint16(p[2:], to.Port())
	binary.BigEndian.PutUint32(p[4:], 0x726f6f74)
	p[12], p[13] = 5<<4, tcpSYN
	binary.BigEndian.PutUint16(p[14:], 65535)
	return ipv4(protoTCP, from.Addr(), to.Addr(), p, 16)
}

func udp(from, to netip.AddrPort, payload []byte) []byte {
	p := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(p, from.Port())
	binary.BigEndian.PutUint16(p[2:], to.Port())
	binary.BigEndian.PutUint16(p[4:], uint16(8+len(payload)))
	return ipv4(protoUDP, from.Addr(), to.Addr(), append(p, payload...), 6)
}

func icmpEcho(from, to netip.Addr, id uint16) []byte {
	p := []byte{8, 0, 0, 0, byte(id >> 8), byte(id), 0, 1, 'r', 'o', 'o', 't', 'c', 'e', 'l', 'l'}
	binary.BigEndian.PutUint16(p[2:], checksum(p))
	return ipv4(protoICMP, from, to, p, -1)
}

// checksum is the Internet checksum, RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// packet is a received IPv4 packet's essence.
type packet struct {
	proto    byte
	from, to netip.AddrPort // ports are 0 for other protocols than TCP and UDP
	flags    byte           // TCP
	icmpType byte
}

func parseIPv4(frame []byte) (packet, bool) {
	if len(frame) < 34 || binary.BigEndian.Uint16(frame[12:]) != etherIPv4 {
		return packet{}, false
	}
	ip := frame[14:]
	header := int(ip[0]&0xf) * 4
	if ip[0]>>4 != 4 || header < 20 || len(ip) < header+8 {
		return packet{}, false
	}
	from, _ := netip.AddrFromSlice(ip[12:16])
	to, _ := netip.AddrFromSlice(ip[16:20])
	p, body := packet{proto: ip[9]}, ip[header:]
	var fromPort, toPort uint16
	switch p.proto {
	case protoTCP:
		if len(body) < 20 {
			return packet{}, false
		}
		p.flags = body[13]
		fallthrough
	case protoUDP:
		fromPort, toPort = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
	case protoICMP:
		p.icmpType = body[0]
	}
	p.from, p.to = netip.AddrPortFrom(from, fromPort), netip.AddrPortFrom(to, toPort)
	return p, true
}

// accepted tells that a TCP connection was accepted.
func (p packet) accepted() bool {
	return p.proto == protoTCP && p.flags&(tcpSYN|tcpACK) == tcpSYN|tcpACK
}
