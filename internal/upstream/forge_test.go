package upstream_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/dnstest"
	"github.com/rootcell-ai/rootcell/internal/upstream"
)

func TestQueriesAreHardToGuess(t *testing.T) {
	a := dnstest.Start(t, public)
	r := newResolver(t, upstream.Config{}, a)
	ids, ports, cases := map[uint16]bool{}, map[uint16]bool{}, map[string]bool{}
	for i := range 60 {
		host := fmt.Sprintf("abcdefghijklmnop%c%c.example.com", 'a'+i%26, 'a'+i/26)
		if _, err := r.Lookup(t.Context(), name(t, host)); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range a.Queries() {
		ids[q.Msg.Id], ports[q.From.Port()], cases[q.Raw[:16]] = true, true, true
	}
	if len(ids) < 55 || len(ports) < 4 || len(cases) < 55 {
		t.Errorf("60 queries have %d ids, %d ports and %d spellings", len(ids), len(ports), len(cases))
	}
}

// forger is a resolver that sends other messages before the right one.
func forger(t *testing.T, forged func(query []byte) [][]byte) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, client, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, b := range forged(buf[:n]) {
				_, _ = pc.WriteTo(b, client)
			}
			_, _ = pc.WriteTo(response(buf[:n], "192.88.98.1"), client)
		}
	}()
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

// response answers a query with one address, byte for byte as it was asked.
func response(query []byte, addr string) []byte {
	end := 12
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	out := append([]byte{}, query[:end+5]...)
	out[2], out[3], out[7], out[11] = 0x81, 0x80, 1, 0
	out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4)
	ip := netip.MustParseAddr(addr).As4()
	return append(out, ip[:]...)
}

func TestForgedResponsesAreIgnored(t *testing.T) {
	change := func(f func(b []byte)) func([]byte) [][]byte {
		return func(q []byte) [][]byte {
			b := response(q, "198.41.0.4")
			f(b)
			return [][]byte{b}
		}
	}
	tests := map[string]func(q []byte) [][]byte{
		"another id":     change(func(b []byte) { b[0] ^= 1 }),
		"another name":   change(func(b []byte) { b[13] = 'x' }),
		"another type":   change(func(b []byte) { b[len(b)-19] = 28 }),
		"a query":        change(func(b []byte) { b[2] &= 0x7f }),
		"another opcode": change(func(b []byte) { b[2] |= 0x28 }),
		"no question":    change(func(b []byte) { b[5] = 0 }),
		"a header alone": func(q []byte) [][]byte { return [][]byte{response(q, "198.41.0.4")[:12]} },
		"nothing":        func([]byte) [][]byte { return [][]byte{{}} },
		"a hundred others": func(q []byte) (out [][]byte) {
			for i := range 100 {
				b := response(q, "198.41.0.4")
				binary.BigEndian.PutUint16(b, binary.BigEndian.Uint16(q)+uint16(i)+1)
				out = append(out, b)
			}
			return out
		},
	}
	for name_, forged := range tests {
		t.Run(name_, func(t *testing.T) {
			r := newResolver(t, upstream.Config{Resolvers: []netip.AddrPort{forger(t, forged)}})
			got, err := r.Addresses(t.Context(), name(t, "www.example.com"))
			if diff := cmp.Diff([]string{"192.88.98.1"}, texts(got)); err != nil || diff != "" {
				t.Errorf("error %v, (-want +got)\n%s", err, diff)
			}
		})
	}
}

func TestAResponseInOtherLettersIsCheckedOverTCP(t *testing.T) {
	a := dnstest.Start(t, func(q dnstest.Query) *dns.Msg {
		m := dnstest.Reply(q, "@ 60 IN A 192.88.98.1")
		if q.Proto == "udp" {
			m = dnstest.Reply(q, "@ 60 IN A 198.41.0.4")
			m.Question[0].Name = strings.ToUpper(q.Raw)
		}
		return m
	})
	r := newResolver(t, upstream.Config{}, a)
	got, err := r.Addresses(t.Context(), name(t, "www.example.com"))
	if diff := cmp.Diff([]string{"192.88.98.1"}, texts(got)); err != nil || diff != "" {
		t.Errorf("error %v, (-want +got)\n%s", err, diff)
	}
}

func TestAResolverThatFoldsLettersIsStillUsable(t *testing.T) {
	a := dnstest.Start(t, func(q dnstest.Query) *dns.Msg {
		m := public(q)
		m.Question[0].Name = strings.ToLower(q.Raw)
		return m
	})
	r := newResolver(t, upstream.Config{}, a)
	for i := range 3 {
		if _, err := r.Lookup(t.Context(), name(t, fmt.Sprintf("a-long-name-%d.example.com", i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(a.Queries()); n != 4 {
		t.Errorf("%d queries, want 4: only the first needs a second look", n)
	}
}
