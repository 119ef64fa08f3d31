package upstream

import (
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/specialaddr"
)

// FuzzReadAnswer feeds responses of a hostile resolver: whatever it sends, no
// special address comes out, and what is packed for clients can be read.
func FuzzReadAnswer(f *testing.F) {
	host, err := hostname.Parse("www.example.com")
	if err != nil {
		f.Fatal(err)
	}
	for _, records := range [][]string{
		{"www.example.com. 60 IN A 192.88.98.1"},
		{"www.example.com. 60 IN A 127.0.0.1", "www.example.com. 60 IN A 192.88.98.1"},
		{"www.example.com. 60 IN CNAME a.b.example.", "a.b.example. 60 IN A 10.0.0.1"},
		{`www.example.com. 60 IN CNAME a\000\..b.example.`, `a\000\..b.example. 60 IN A 192.88.98.1`},
		{"www.example.com. 60 IN CNAME www.example.com."},
	} {
		var m dns.Msg
		m.SetQuestion("www.example.com.", dns.TypeA)
		m.Response = true
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		for _, m.Compress = range []bool{false, true} {
			wire, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(wire)
		}
	}
	now := time.Unix(1e9, 0)
	f.Fuzz(func(t *testing.T, wire []byte) {
		a, err := readAnswer(wire, host, &filter{}, now)
		if err != nil {
			return
		}
		for _, addr := range a.Addrs {
			if class, special := specialaddr.Check(addr); special {
				t.Errorf("%s (%s) is among the addresses", addr, class)
			}
		}
		q := newQuery(host, false, false)
		msg := append([]byte{}, q.wire...)
		msg[2] |= 0x80
		msg[6], msg[7] = byte(a.Records()>>8), byte(a.Records())
		var m dns.Msg
		if err := m.Unpack(a.AppendRecords(msg, now)); err != nil {
			t.Fatalf("what is packed cannot be read: %v", err)
		}
		addrs := 0
		for _, rr := range m.Answer {
			if h := rr.Header(); h.Ttl > uint32(maxTTL/time.Second) {
				t.Errorf("%v is kept too long", rr)
			}
			if _, ok := rr.(*dns.A); ok {
				addrs++
			}
		}
		if addrs != len(a.Addrs) || a.expires.Before(now) {
			t.Errorf("%d addresses are packed, %d known, until %s", addrs, len(a.Addrs), a.expires)
		}
	})
}

// FuzzDeliver feeds datagrams to a socket that waits for one response.
func FuzzDeliver(f *testing.F) {
	host, err := hostname.Parse("www.example.com")
	if err != nil {
		f.Fatal(err)
	}
	q := newQuery(host, false, true)
	q.setID(0x1234)
	response := append([]byte{}, q.wire...)
	response[2] |= 0x80
	f.Add(response)
	f.Add(response[:12])
	f.Add([]byte{0x12, 0x34})
	f.Fuzz(func(t *testing.T, wire []byte) {
		q := newQuery(host, false, true)
		q.setID(0x1234)
		s := &socket{waiting: map[uint16]*query{q.id: q}}
		if !s.deliver(wire) {
			return
		}
		if r := <-q.reply; r.err == nil {
			if r.wire[0] != 0x12 || r.wire[1] != 0x34 || r.wire[2]&0x80 == 0 || !q.exact(r.wire) {
				t.Errorf("%x was taken as the response", wire)
			}
		}
	})
}
