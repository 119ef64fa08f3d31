//go:build linux

package agentprobe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rootcell-ai/rootcell/internal/probe"
)

var (
	here  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	there = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	near  = netip.MustParseAddrPort("192.168.100.11:40100")
	far   = netip.MustParseAddrPort("192.0.2.1:80")
)

func TestChecksumIsThatOfRFC1071(t *testing.T) {
	// The example of RFC 1071, section 3.
	if got := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("checksum = %#04x", got)
	}
	if got := checksum([]byte{0xff}); got != ^uint16(0xff00) {
		t.Errorf("of an odd length: %#04x", got)
	}
}

func TestPacketsSurviveTheirOwnParser(t *testing.T) {
	cases := map[string]struct {
		packet []byte
		want   packet
	}{
		"a TCP SYN":  {tcpSyn(near, far), packet{proto: protoTCP, from: near, to: far, flags: tcpSYN}},
		"a datagram": {udp(near, far, []byte("x")), packet{proto: protoUDP, from: near, to: far}},
		"a ping": {icmpEcho(near.Addr(), far.Addr(), 1), packet{
			proto: protoICMP, from: netip.AddrPortFrom(near.Addr(), 0), to: netip.AddrPortFrom(far.Addr(), 0), icmpType: 8,
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if checksum(tc.packet[:20]) != 0 {
				t.Error("the IP header's checksum is wrong")
			}
			got, ok := parseIPv4(ethernet(there, here, etherIPv4, tc.packet))
			if !ok || got != tc.want {
				t.Errorf("parseIPv4 = %+v, %v; want %+v", got, ok, tc.want)
			}
			if got.accepted() {
				t.Error("counts as an accepted connection")
			}
		})
	}
}

func TestAcceptedIsASynAck(t *testing.T) {
	raw := tcpSyn(far, near)
	for flags, want := range map[byte]bool{tcpSYN | tcpACK: true, tcpSYN: false, tcpACK | 0x04: false, 0x04: false} {
		raw[33] = flags
		got, ok := parseIPv4(ethernet(here, there, etherIPv4, raw))
		if !ok || got.accepted() != want {
			t.Errorf("flags %#x: accepted = %v, want %v", flags, got.accepted(), want)
		}
	}
}

func TestARP(t *testing.T) {
	request := arpRequest(here, near.Addr(), far.Addr())
	if _, _, ok := arpReply(request); ok {
		t.Error("a request counts as a reply")
	}
	reply := bytes.Clone(request)
	binary.BigEndian.PutUint16(reply[20:], 2)
	who, mac, ok := arpReply(reply)
	if !ok || who != near.Addr() || !bytes.Equal(mac, here) {
		t.Errorf("arpReply = %s, %s, %v", who, mac, ok)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(ethernet(there, here, etherIPv4, tcpSyn(near, far)))
	f.Add(arpRequest(here, near.Addr(), far.Addr()))
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, frame []byte) {
		parseIPv4(frame) // what the link brings must not end the probes
		arpReply(frame)
	})
}

func TestRun(t *testing.T) {
	ctx := context.Background()
	cases := map[string]struct {
		err  error
		want probe.Result
	}{
		"holds":    {nil, probe.Result{Name: "n", OK: true, Detail: "d"}},
		"broken":   {errors.New("leak"), probe.Result{Name: "n", Detail: "leak"}},
		"left out": {errSkip("no host"), probe.Result{Name: "n", OK: true, Skipped: true, Detail: "no host"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := run(ctx, check{"n", func(context.Context) (string, error) { return "d", tc.err }})
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(probe.Result{}, "Seconds")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRunRefusesARequestItDoesNotUnderstand(t *testing.T) {
	for name, req := range map[string]probe.Request{
		"another schema": {Schema: 9, Firewall: "192.168.100.10"},
		"no firewall":    {Schema: probe.Schema},
	} {
		if err := Run(context.Background(), req, func(probe.Result) { t.Error("ran") }); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestProbeNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range (&prober{}).checks() {
		if seen[c.name] {
			t.Errorf("two probes are called %q", c.name)
		}
		seen[c.name] = true
	}
}
