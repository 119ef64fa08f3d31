package dnsproxy

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/upstream"
)

// sink is an upstream that notes what it was asked for.
type sink struct{ asked []hostname.Name }

func (s *sink) Cached(name hostname.Name, _ time.Time) (*upstream.Answer, bool) {
	s.asked = append(s.asked, name)
	return nil, false
}

func (s *sink) Lookup(_ context.Context, name hostname.Name) (*upstream.Answer, error) {
	s.asked = append(s.asked, name)
	return &upstream.Answer{Rcode: dns.RcodeNameError}, nil
}

// last keeps the last event and counts them.
type last struct {
	audit.Event
	n int
}

func (l *last) Record(e audit.Event) { l.Event, l.n = e, l.n+1 }

func policyOf(t testing.TB, line string) *policy.Policy {
	t.Helper()
	p, err := policy.ParseSuffix(line)
	if err != nil {
		t.Fatal(err)
	}
	return policy.New(policy.Rules{policy.KindDNS: {{Host: p, Where: "allowed-dns.txt:1"}}})
}

// FuzzQuery feeds raw messages to the whole decision. Invariants: it does not
// panic; each message is one event; nothing that the policy denies, and nothing
// but queries of type A and class IN, reaches upstream; every response is a
// well-formed response to the message.
func FuzzQuery(f *testing.F) {
	seed := func(name string, qtype uint16, edit func(*dns.Msg)) {
		var m dns.Msg
		m.SetQuestion(name, qtype)
		m.SetEdns0(1232, true)
		if edit != nil {
			edit(&m)
		}
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	for _, name := range []string{"www.ok.example.", "OK.Example.", "evil.example.", `www\.ok.example.`, `a\000.ok.example.`, "notok.example.", ".", "10.in-addr.arpa."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeTXT, dns.TypeANY, dns.TypeNULL, 65280} {
			seed(name, qtype, nil)
		}
	}
	seed("www.ok.example.", dns.TypeA, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) })
	seed("www.ok.example.", dns.TypeA, func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate })
	seed("www.ok.example.", dns.TypeA, func(m *dns.Msg) { m.Response = true })
	seed("www.ok.example.", dns.TypeTXT, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS })
	seed("www.ok.example.", dns.TypeA, func(m *dns.Msg) {
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: make([]byte, 300)}}
	})
	f.Add([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))

	gate := enforce.New()
	gate.Swap(policyOf(f, "ok.example"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		up, log := &sink{}, &last{}
		s := New(Config{Gate: gate, Resolver: up, Audit: log})
		x := exchange{client: netip.MustParseAddrPort("192.168.100.11:4711"), proto: 'u', started: time.Unix(1e9, 0)}
		response, wait := s.handle(&x, msg, nil)
		if wait {
			response = s.finish(t.Context(), &x, nil)
		}
		for _, name := range up.asked {
			if !gate.Current().Policy.DNS(name).Allow {
				t.Errorf("%s reached upstream", name)
			}
			if x.qtype != dns.TypeA || x.class != dns.ClassINET {
				t.Errorf("a query of type %d and class %d reached upstream", x.qtype, x.class)
			}
		}
		if log.n != 1 {
			t.Errorf("%d events for one message", log.n)
		}
		if len(up.asked) > 0 && log.Verdict == audit.Deny && log.Reason != string(policy.Limit) {
			t.Errorf("recorded %s %s, and upstream was asked for %v", log.Verdict, log.Reason, up.asked)
		}
		if len(response) == 0 {
			if len(msg) >= headerLen && msg[2]&0x80 == 0 {
				t.Error("a query has no response")
			}
			return
		}
		var m dns.Msg
		if err := m.Unpack(response); err != nil {
			t.Fatalf("reading the response: %v", err)
		}
		if len(response) > maxUDP || response[0] != msg[0] || response[1] != msg[1] || !m.Response || len(m.Answer) != 0 {
			t.Errorf("response to %x is %v", msg, &m)
		}
	})
}
