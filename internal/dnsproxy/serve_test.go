package dnsproxy_test

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/dnsproxy"
	"github.com/rootcell-ai/rootcell/internal/dnstest"
	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/upstream"
)

// lab is a server between a client and an authority, all on loopback.
type lab struct {
	addr      string
	gate      *enforce.Gate
	server    *dnsproxy.Server
	authority *dnstest.Authority
	events    *recorder
	resolver  *upstream.Resolver
}

// recorder keeps the audit events.
type recorder struct {
	mu     sync.Mutex
	events []audit.Event
}

func (r *recorder) Record(e audit.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) last(t *testing.T) audit.Event {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == 0 {
		t.Fatal("nothing was recorded")
	}
	return r.events[len(r.events)-1]
}

// rules compiles the lines of an allowed-dns.txt.
func rules(t testing.TB, lines ...string) *policy.Policy {
	t.Helper()
	list := []policy.Rule{}
	for i, line := range lines {
		p, err := policy.ParseSuffix(line)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, policy.Rule{Host: p, Where: "allowed-dns.txt:" + string(rune('1'+i))})
	}
	return policy.New(policy.Rules{policy.KindDNS: list})
}

func newLab(t testing.TB, limits dnsproxy.Limits, handle dnstest.Handler, lines ...string) *lab {
	t.Helper()
	l := &lab{gate: enforce.New(), authority: dnstest.Start(t, handle), events: &recorder{}}
	l.gate.Swap(rules(t, lines...))
	resolver, err := upstream.New(upstream.Config{Resolvers: []netip.AddrPort{l.authority.Addr}, Timeout: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resolver.Close() })
	l.resolver = resolver
	l.server = dnsproxy.New(dnsproxy.Config{Gate: l.gate, Resolver: resolver, Audit: l.events, Instance: "default", Limits: limits})
	sockets := listen(t)
	l.addr = sockets.TCP.Addr().String()
	served := make(chan struct{})
	go func() {
		defer close(served)
		l.server.Serve(sockets)
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := l.server.Shutdown(ctx); err != nil {
			t.Errorf("shutting down: %v", err)
		}
		<-served
		if n := l.server.Panics(); n > 0 {
			t.Errorf("%d queries panicked", n)
		}
	})
	return l
}

// listen finds a port that is free for both transports.
func listen(t testing.TB) *dnsproxy.Sockets {
	t.Helper()
	var last error
	for range 20 {
		sockets, err := dnsproxy.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
		if err == nil {
			return sockets
		}
		last = err
	}
	t.Fatal(last)
	return nil
}

// ask sends a query for name with EDNS and returns the response.
func (l *lab) ask(t testing.TB, net, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.SetEdns0(1232, false)
	return l.send(t, net, m)
}

func (l *lab) send(t testing.TB, net string, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: net, Timeout: 5 * time.Second}
	r, _, err := c.Exchange(m, l.addr)
	if err != nil {
		t.Fatalf("asking %v over %s: %v", m.Question, net, err)
	}
	return r
}

// describe gives a response in one line: the code, the answers, the extended error.
func describe(m *dns.Msg) string {
	parts := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		parts = append(parts, strings.Join(strings.Fields(strings.Replace(rr.String(), "\tIN\t", " ", 1)), " "))
	}
	if e := extendedText(m); e != "" {
		parts = append(parts, e)
	}
	return strings.Join(parts, "; ")
}

func extendedText(m *dns.Msg) string {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				return "EDE " + dns.ExtendedErrorCodeToString[e.InfoCode] + ": " + e.ExtraText
			}
		}
	}
	return ""
}

func TestQueriesAreAnsweredOrRefused(t *testing.T) {
	l := newLab(t, dnsproxy.Limits{}, dnstest.Zone(map[string][]string{
		"www.ok.example":     {"@ 300 IN A 192.88.98.1", "@ 300 IN A 192.88.98.2"},
		"alias.ok.example":   {"@ 60 IN CNAME cdn.other.net.", "cdn.other.net. 300 IN CNAME e1.other.net.", "e1.other.net. 20 IN A 192.88.98.3"},
		"odd.ok.example":     {`@ 60 IN CNAME a\032b.other.net.`, `a\032b.other.net. 300 IN A 192.88.98.4`},
		"private.ok.example": {"@ 60 IN A 10.0.0.1"},
		"meta.ok.example":    {"@ 60 IN A 169.254.169.254", "@ 60 IN A 127.0.0.1"},
		"mixed.ok.example":   {"@ 60 IN A 10.0.0.1", "@ 60 IN A 192.88.98.5"},
		"stray.ok.example":   {"@ 60 IN A 192.88.98.6", "evil.example. 60 IN A 192.88.98.7", "@ 60 IN TXT hidden"},
		"empty.ok.example":   {"@ 60 IN SOA ns.ok.example. root.ok.example. 1 2 3 4 60"},
	}), "ok.example")
	const refusedEvil = "REFUSED; EDE Blocked: blocked by rootcell: no line of allowed-dns.txt covers it; on the host run: rootcell allow "
	tests := map[string]struct {
		name     string
		qtype    uint16
		want     string
		reason   policy.Reason
		upstream bool
	}{
		"an allowed name has its addresses":               {"www.ok.example", dns.TypeA, "NOERROR; www.ok.example. 300 A 192.88.98.1; www.ok.example. 300 A 192.88.98.2", "", true},
		"aliases are given in their order, with one TTL":  {"alias.ok.example", dns.TypeA, "NOERROR; alias.ok.example. 20 CNAME cdn.other.net.; cdn.other.net. 20 CNAME e1.other.net.; e1.other.net. 20 A 192.88.98.3", "", true},
		"aliases that are no host names are left out":     {"odd.ok.example", dns.TypeA, "NOERROR; odd.ok.example. 60 A 192.88.98.4", "", true},
		"records nobody asked for are left out":           {"stray.ok.example", dns.TypeA, "NOERROR; stray.ok.example. 60 A 192.88.98.6", "", true},
		"a private address is refused":                    {"private.ok.example", dns.TypeA, "REFUSED; EDE Blocked: blocked by rootcell: it resolves to 10.0.0.1 (private), which is not in allow_private", policy.SpecialAddress, true},
		"a metadata address is refused":                   {"meta.ok.example", dns.TypeA, "REFUSED; EDE Blocked: blocked by rootcell: it resolves to 169.254.169.254 (metadata), which is not in allow_private", policy.SpecialAddress, true},
		"of several addresses the special ones are gone":  {"mixed.ok.example", dns.TypeA, "NOERROR; mixed.ok.example. 60 A 192.88.98.5", "", true},
		"a name without addresses has an empty answer":    {"empty.ok.example", dns.TypeA, "NOERROR", "", true},
		"a name that does not exist does not exist":       {"nowhere.ok.example", dns.TypeA, "NXDOMAIN", "", true},
		"AAAA is empty and stays here":                    {"v6.ok.example", dns.TypeAAAA, "NOERROR", "", false},
		"HTTPS is empty and stays here":                   {"svc.ok.example", dns.TypeHTTPS, "NOERROR", "", false},
		"TXT of an allowed name is refused here":          {"txt.ok.example", dns.TypeTXT, "REFUSED; EDE Blocked: blocked by rootcell: queries of type TXT are not answered; A is", policy.QueryType, false},
		"ANY of an allowed name is refused here":          {"any.ok.example", dns.TypeANY, "REFUSED; EDE Blocked: blocked by rootcell: queries of type ANY are not answered; A is", policy.QueryType, false},
		"a private type of an allowed name is refused":    {"t.ok.example", 65280, "REFUSED; EDE Blocked: blocked by rootcell: queries of type TYPE65280 are not answered; A is", policy.QueryType, false},
		"another name is refused with the way out":        {"evil.example", dns.TypeA, refusedEvil + "evil.example", policy.NoRule, false},
		"another name is refused for AAAA too":            {"evil.example", dns.TypeAAAA, refusedEvil + "evil.example", policy.NoRule, false},
		"a name that ends in the same letters is refused": {"notok.example", dns.TypeA, refusedEvil + "notok.example", policy.NoRule, false},
		"a name that begins alike is refused":             {"ok.example.evil.net", dns.TypeA, refusedEvil + "ok.example.evil.net", policy.NoRule, false},
		"a reverse lookup is refused":                     {"1.0.0.10.in-addr.arpa", dns.TypePTR, refusedEvil + "1.0.0.10.in-addr.arpa", policy.NoRule, false},
		"a single label is refused":                       {"localhost", dns.TypeA, "REFUSED; EDE Blocked: blocked by rootcell: this is not a host name", policy.Malformed, false},
		"an underscore is refused":                        {"_x.ok.example", dns.TypeA, "REFUSED; EDE Blocked: blocked by rootcell: this is not a host name", policy.Malformed, false},
		"a dot inside a label is refused":                 {`www\.ok.example`, dns.TypeA, "REFUSED; EDE Blocked: blocked by rootcell: this is not a host name", policy.Malformed, false},
		"a NUL inside a label is refused":                 {`a\000.ok.example`, dns.TypeA, "REFUSED; EDE Blocked: blocked by rootcell: this is not a host name", policy.Malformed, false},
		"the root is refused":                             {".", dns.TypeA, "REFUSED; EDE Blocked: blocked by rootcell: this is not a host name", policy.Malformed, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, net := range []string{"udp", "tcp"} {
				before := len(l.authority.Queries())
				r := l.ask(t, net, test.name, test.qtype)
				if got := describe(r); got != test.want {
					t.Errorf("over %s:\n got %s\nwant %s", net, got, test.want)
				}
				e := l.events.last(t)
				if e.Reason != string(test.reason) || (e.Verdict == audit.Allow) != (test.reason == "") || e.Generation != 1 || e.Kind != audit.KindDNS {
					t.Errorf("over %s recorded %+v, want reason %q", net, e, test.reason)
				}
				// Only the first of the two queries may have gone out; the cache has it then.
				if asked := len(l.authority.Queries()) > before; asked != (test.upstream && net == "udp") {
					t.Errorf("over %s the authority was asked: %v", net, asked)
				}
			}
		})
	}
}
