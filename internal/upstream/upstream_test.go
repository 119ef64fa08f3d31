package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/dnstest"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/upstream"
)

func name(t testing.TB, s string) hostname.Name {
	t.Helper()
	n, err := hostname.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newResolver(t testing.TB, c upstream.Config, authorities ...*dnstest.Authority) *upstream.Resolver {
	t.Helper()
	for _, a := range authorities {
		c.Resolvers = append(c.Resolvers, a.Addr)
	}
	r, err := upstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func public(q dnstest.Query) *dns.Msg { return dnstest.Reply(q, "@ 300 IN A 192.88.98.1") }

func texts(addrs []netip.Addr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

func TestAddresses(t *testing.T) {
	a := dnstest.Start(t, func(q dnstest.Query) *dns.Msg {
		switch q.Name {
		case "broken.example.com":
			return dnstest.Fail(q, dns.RcodeServerFailure)
		case "refused.example.com":
			return dnstest.Fail(q, dns.RcodeRefused)
		case "v6.example.com":
			return dnstest.Reply(q, "@ 60 IN AAAA 2606:4700::1")
		case "chaos.example.com":
			return dnstest.Reply(q, "@ 60 CH A 192.88.98.1")
		}
		return dnstest.Zone(map[string][]string{
			"www.example.com":      {"@ 300 IN A 192.88.98.1", "@ 300 IN A 192.88.98.2"},
			"alias.example.com":    {"e1.other.net. 20 IN A 192.88.98.3", "cdn.other.net. 300 IN CNAME e1.other.net.", "@ 60 IN CNAME CDN.Other.NET."},
			"loop.example.com":     {"@ 60 IN CNAME a.example.com.", "a.example.com. 60 IN CNAME loop.example.com."},
			"dangling.example.com": {"@ 60 IN CNAME gone.example.com."},
			"stray.example.com":    {"evil.example. 60 IN A 192.88.98.7"},
			"private.example.com":  {"@ 60 IN A 10.0.0.1", "@ 60 IN A 192.168.1.1"},
			"mixed.example.com":    {"@ 60 IN A 169.254.169.254", "@ 60 IN A 192.88.98.5", "@ 60 IN A 0.0.0.0"},
			"lab.example.com":      {"@ 60 IN A 172.20.1.1"},
			"own.example.com":      {"@ 60 IN A 172.20.9.9"},
			"self.example.com":     {"@ 60 IN A 198.41.0.4"},
		})(q)
	})
	r := newResolver(t, upstream.Config{
		AllowPrivate: []netip.Prefix{netip.MustParsePrefix("172.20.0.0/16")},
		Deny:         []netip.Prefix{netip.MustParsePrefix("172.20.9.9/32"), netip.MustParsePrefix("198.41.0.4/32")},
	}, a)
	tests := map[string]struct {
		host string
		want []string
		err  string
	}{
		"all of them":                           {"www.example.com", []string{"192.88.98.1", "192.88.98.2"}, ""},
		"behind aliases in any order":           {"alias.example.com", []string{"192.88.98.3"}, ""},
		"aliases in a circle":                   {"loop.example.com", nil, "too long a chain"},
		"an alias to nowhere":                   {"dangling.example.com", nil, "has no IPv4 address"},
		"another name's address":                {"stray.example.com", nil, "has no IPv4 address"},
		"another class":                         {"chaos.example.com", nil, "has no IPv4 address"},
		"another family":                        {"v6.example.com", nil, "has no IPv4 address"},
		"private ones only":                     {"private.example.com", nil, "10.0.0.1 is special (private)"},
		"what is left without the special ones": {"mixed.example.com", []string{"192.88.98.5"}, ""},
		"a private one that is allowed":         {"lab.example.com", []string{"172.20.1.1"}, ""},
		"an own one inside of what is allowed":  {"own.example.com", nil, "172.20.9.9 is special (own)"},
		"an own one that is public":             {"self.example.com", nil, "198.41.0.4 is special (own)"},
		"of a name that does not exist":         {"no.example.com", nil, "does not exist"},
		"when the zone is broken":               {"broken.example.com", nil, "answers with code 2"},
		"when the resolver refuses":             {"refused.example.com", nil, "resolver answers REFUSED"},
	}
	for name_, test := range tests {
		t.Run(name_, func(t *testing.T) {
			got, err := r.Addresses(t.Context(), name(t, test.host))
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), test.host)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if diff := cmp.Diff(test.want, texts(got), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	var special *upstream.SpecialAddressError
	if _, err := r.Addresses(t.Context(), name(t, "private.example.com")); !errors.As(err, &special) || special.Class != "private" {
		t.Errorf("a private address gives %v", err)
	}
	var missing *upstream.NotFoundError
	if _, err := r.Addresses(t.Context(), name(t, "no.example.com")); !errors.As(err, &missing) || missing.Rcode != dns.RcodeNameError {
		t.Errorf("a missing name gives %v", err)
	}
	for _, q := range a.Queries() {
		if q.Type != dns.TypeA {
			t.Errorf("upstream was asked for type %d", q.Type)
		}
	}
}

func TestAnswersAreKeptAndEqualLookupsAreOne(t *testing.T) {
	hold := make(chan struct{})
	a := dnstest.Start(t, func(q dnstest.Query) *dns.Msg {
		<-hold
		return public(q)
	})
	r := newResolver(t, upstream.Config{}, a)
	host := name(t, "www.example.com")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := r.Lookup(t.Context(), host); err != nil {
				t.Error(err)
			}
		})
	}
	<-a.Asked()
	close(hold)
	wg.Wait()
	if _, err := r.Lookup(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	if n := len(a.Queries()); n != 1 {
		t.Errorf("upstream was asked %d times, want once", n)
	}
	r.Flush()
	if _, err := r.Lookup(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	if n := len(a.Queries()); n != 2 {
		t.Errorf("after a flush upstream was asked %d times in all, want 2", n)
	}
}

func TestHowLongAnswersAreKept(t *testing.T) {
	const soa = "ns.example.com. root.example.com. 1 2 3 4 "
	a := dnstest.Start(t, dnstest.Zone(map[string][]string{
		"zero.example.com":   {"@ 0 IN A 192.88.98.1"},
		"minute.example.com": {"@ 60 IN A 192.88.98.1"},
		"week.example.com":   {"@ 604800 IN A 192.88.98.1"},
		"chain.example.com":  {"@ 100 IN CNAME x.example.net.", "x.example.net. 30 IN A 192.88.98.1"},
		"none.example.com":   {"example.com. 900 IN SOA " + soa + "40"},
		"long.example.com":   {"example.com. 86400 IN SOA " + soa + "86400"},
		"nosoa.example.com":  {},
	}))
	r := newResolver(t, upstream.Config{}, a)
	tests := map[string]struct {
		host string
		want time.Duration
	}{
		"an answer that is not to be kept": {"zero.example.com", 5 * time.Second},
		"as it says":                       {"minute.example.com", time.Minute},
		"an hour at most":                  {"week.example.com", time.Hour},
		"the shortest of the chain":        {"chain.example.com", 30 * time.Second},
		"nothing, as the zone says":        {"none.example.com", 40 * time.Second},
		"nothing, five minutes at most":    {"long.example.com", 5 * time.Minute},
		"nothing, without a zone":          {"nosoa.example.com", 30 * time.Second},
		"a name that does not exist":       {"absent.example.com", 30 * time.Second},
	}
	for name_, test := range tests {
		t.Run(name_, func(t *testing.T) {
			host := name(t, test.host)
			began := time.Now()
			if _, err := r.Lookup(t.Context(), host); err != nil {
				t.Fatal(err)
			}
			if _, ok := r.Cached(host, began.Add(test.want-time.Second/2)); !ok {
				t.Error("it is gone too early")
			}
			if _, ok := r.Cached(host, time.Now().Add(test.want)); ok {
				t.Error("it is kept too long")
			}
		})
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	a := dnstest.Start(t, public)
	r := newResolver(t, upstream.Config{CacheEntries: 64}, a)
	kept := 0
	for i := range 500 {
		if _, err := r.Lookup(t.Context(), name(t, fmt.Sprintf("h%d.example.com", i))); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 500 {
		if _, ok := r.Cached(name(t, fmt.Sprintf("h%d.example.com", i)), time.Now()); ok {
			kept++
		}
	}
	if kept > 64 || kept < 32 {
		t.Errorf("%d of 500 names are kept, want at most 64 and not much fewer", kept)
	}
}

func TestLookupsAreBounded(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	a := dnstest.Start(t, func(q dnstest.Query) *dns.Msg {
		<-hold
		return public(q)
	})
	r := newResolver(t, upstream.Config{MaxInFlight: 1}, a)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	host := name(t, "a.example.com")
	go func() {
		_, err := r.Lookup(ctx, host)
		first <- err
	}()
	<-a.Asked()
	if _, err := r.Lookup(t.Context(), name(t, "b.example.com")); !errors.Is(err, upstream.ErrBusy) {
		t.Errorf("a second lookup: %v, want ErrBusy", err)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first, canceled: %v", err)
	}
}

func TestResolversStandInForEachOther(t *testing.T) {
	down, err := net.ListenPacket("udp4", "127.0.0.1:0") // hears, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer down.Close()
	closed, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	tests := map[string]netip.AddrPort{
		"one is silent":      down.LocalAddr().(*net.UDPAddr).AddrPort(),
		"one is not running": closed.LocalAddr().(*net.UDPAddr).AddrPort(),
		"one cannot resolve": dnstest.Start(t, func(q dnstest.Query) *dns.Msg { return dnstest.Fail(q, dns.RcodeServerFailure) }).Addr,
		"one refuses":        dnstest.Start(t, func(q dnstest.Query) *dns.Msg { return dnstest.Fail(q, dns.RcodeRefused) }).Addr,
	}
	for name_, first := range tests {
		t.Run(name_, func(t *testing.T) {
			good := dnstest.Start(t, public)
			r := newResolver(t, upstream.Config{Resolvers: []netip.AddrPort{first}}, good)
			for i := range 3 {
				a, err := r.Lookup(t.Context(), name(t, fmt.Sprintf("h%d.example.com", i)))
				if err != nil || a.Server != good.Addr {
					t.Fatalf("lookup %d: %v", i, err)
				}
			}
		})
	}
}

func TestALostDatagramIsSentAgain(t *testing.T) {
	var once sync.Once
	a := dnstest.Start(t, func(q dnstest.Query) *dns.Msg {
		var r *dns.Msg = public(q)
		once.Do(func() { r = nil })
		return r
	})
	r := newResolver(t, upstream.Config{}, a)
	if _, err := r.Lookup(t.Context(), name(t, "www.example.com")); err != nil {
		t.Fatal(err)
	}
	q := a.Queries()
	if len(q) != 2 || q[0].Msg.Id == q[1].Msg.Id {
		t.Errorf("%d queries; the second must have an id of its own", len(q))
	}
}

func TestTruncatedAnswersComeOverTCP(t *testing.T) {
	var records []string
	for i := range 100 { // of which 64 are kept
		records = append(records, fmt.Sprintf("@ 60 IN A 192.88.98.%d", i))
	}
	tests := map[string]func(*dns.Msg){
		"cut by the resolver":         func(m *dns.Msg) { m.Truncate(1232) },
		"cut without a single record": func(m *dns.Msg) { m.Answer, m.Truncated = nil, true },
	}
	for name_, cut := range tests {
		t.Run(name_, func(t *testing.T) {
			a := dnstest.Start(t, func(q dnstest.Query) *dns.Msg {
				m := dnstest.Reply(q, records...)
				if q.Proto == "udp" {
					cut(m)
				}
				return m
			})
			r := newResolver(t, upstream.Config{}, a)
			got, err := r.Addresses(t.Context(), name(t, "many.example.com"))
			if err != nil || len(got) != 64 {
				t.Errorf("%d addresses, %v", len(got), err)
			}
			if q := a.Queries(); len(q) != 2 || q[1].Proto != "tcp" {
				t.Errorf("%d queries", len(q))
			}
		})
	}
}

func TestWrongAnswersOverTCPAreNotTaken(t *testing.T) {
	for name_, change := range map[string]func(*dns.Msg){
		"another id":   func(m *dns.Msg) { m.Id++ },
		"another name": func(m *dns.Msg) { m.Question[0].Name = "x" + m.Question[0].Name[1:] },
	} {
		t.Run(name_, func(t *testing.T) {
			a := dnstest.Start(t, func(q dnstest.Query) *dns.Msg {
				m := dnstest.Reply(q, "@ 60 IN A 192.88.98.1")
				if m.Truncated = q.Proto == "udp"; !m.Truncated {
					change(m)
				}
				return m
			})
			r := newResolver(t, upstream.Config{Timeout: time.Second}, a)
			if got, err := r.Addresses(t.Context(), name(t, "www.example.com")); err == nil {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestResolversWithoutEDNSAreUnderstood(t *testing.T) {
	a := dnstest.Start(t, func(q dnstest.Query) *dns.Msg {
		if q.Msg.IsEdns0() != nil {
			return dnstest.Fail(q, dns.RcodeFormatError)
		}
		return public(q)
	})
	r := newResolver(t, upstream.Config{}, a)
	for i := range 2 {
		if _, err := r.Lookup(t.Context(), name(t, fmt.Sprintf("h%d.example.com", i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(a.Queries()); n != 3 {
		t.Errorf("%d queries, want 3: what the resolver cannot do is remembered", n)
	}
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	for name_, c := range map[string]upstream.Config{
		"no resolver":   {},
		"no port":       {Resolvers: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0)}},
		"not a address": {Resolvers: []netip.AddrPort{{}}},
	} {
		if _, err := upstream.New(c); err == nil {
			t.Errorf("%s: no error", name_)
		}
	}
}

func BenchmarkCached(b *testing.B) {
	a := dnstest.Start(b, public)
	r := newResolver(b, upstream.Config{}, a)
	host := name(b, "www.example.com")
	if _, err := r.Lookup(b.Context(), host); err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		r.Cached(host, now)
	}
}

func BenchmarkUncached(b *testing.B) {
	a := dnstest.Start(b, public)
	r := newResolver(b, upstream.Config{}, a)
	host := name(b, "www.example.com")
	b.ReportAllocs()
	for b.Loop() {
		r.Flush()
		if _, err := r.Lookup(b.Context(), host); err != nil {
			b.Fatal(err)
		}
	}
}
