// Package dnstest is a DNS server on loopback for tests: an authority that
// remembers every query that reaches it, so that a test can assert at the far side
// what left the firewall.
package dnstest

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// Query is what an Authority was asked.
type Query struct {
	Name  string // lower case, without the final dot
	Raw   string // as it arrived, with its letters' case
	Type  uint16
	Proto string // "udp" or "tcp"
	Msg   *dns.Msg
	From  netip.AddrPort
}

// Handler answers a query; nil means no answer at all.
type Handler func(q Query) *dns.Msg

// Authority is a running server. Its methods are safe for concurrent use.
type Authority struct {
	Addr netip.AddrPort

	mu      sync.Mutex
	handle  Handler
	queries []Query
	asked   chan struct{} // capacity 1: a query was added
}

// Start runs an authority on a free port of 127.0.0.1, over UDP and TCP, until the
// test ends.
func Start(t testing.TB, handle Handler) *Authority {
	t.Helper()
	a := &Authority{handle: handle, asked: make(chan struct{}, 1)}
	udp, tcp := listen(t)
	a.Addr = udp.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, s := range []*dns.Server{
		{PacketConn: udp, Handler: a.serve("udp"), MsgAcceptFunc: acceptAll},
		{Listener: tcp, Handler: a.serve("tcp"), MsgAcceptFunc: acceptAll},
	} {
		started, stopped := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(stopped)
			_ = s.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-stopped
		})
	}
	return a
}

// listen finds a port that is free for both transports.
func listen(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	var last error
	for range 20 {
		udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Listen("tcp4", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp
		}
		last = err
		udp.Close()
	}
	t.Fatal(last)
	return nil, nil
}

func acceptAll(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }

func (a *Authority) serve(proto string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, m *dns.Msg) {
		q := Query{Proto: proto, Msg: m.Copy()}
		q.From, _ = netip.ParseAddrPort(w.RemoteAddr().String())
		if len(m.Question) > 0 {
			q.Raw, q.Type = m.Question[0].Name, m.Question[0].Qtype
			q.Name = strings.ToLower(strings.TrimSuffix(q.Raw, "."))
		}
		a.mu.Lock()
		a.queries = append(a.queries, q)
		handle := a.handle
		a.mu.Unlock()
		select {
		case a.asked <- struct{}{}:
		default:
		}
		if r := handle(q); r != nil {
			if proto == "udp" {
				r.Truncate(udpSize(m))
			}
			_ = w.WriteMsg(r)
		}
	}
}

func udpSize(m *dns.Msg) int {
	if opt := m.IsEdns0(); opt != nil {
		return int(opt.UDPSize())
	}
	return dns.MinMsgSize
}

// Handle replaces the handler.
func (a *Authority) Handle(h Handler) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handle = h
}

// Queries returns what the authority was asked so far.
func (a *Authority) Queries() []Query {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.queries)
}

// Names returns the names that the authority was asked for so far, in order.
func (a *Authority) Names() []string {
	var names []string
	for _, q := range a.Queries() {
		names = append(names, q.Name)
	}
	return names
}

// Asked is sent on after every query, or once for several.
func (a *Authority) Asked() <-chan struct{} { return a.asked }

// Reply makes a response to q with records in zone-file form; `@` at their start
// stands for the name asked for. It panics on bad records: they are the test's.
func Reply(q Query, records ...string) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q.Msg)
	m.RecursionAvailable = true
	for _, text := range records {
		rr, err := dns.NewRR(strings.Replace(text, "@", q.Raw, 1))
		if err != nil {
			panic(err)
		}
		if _, soa := rr.(*dns.SOA); soa {
			m.Ns = append(m.Ns, rr)
		} else {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

// Fail makes a response to q with an error code and no records.
func Fail(q Query, rcode int) *dns.Msg {
	m := Reply(q)
	m.Rcode = rcode
	return m
}

// Zone is a Handler that answers from a map of names to records as in Reply, and
// with NXDOMAIN for every other name.
func Zone(records map[string][]string) Handler {
	return func(q Query) *dns.Msg {
		lines, known := records[q.Name]
		if !known {
			return Fail(q, dns.RcodeNameError)
		}
		return Reply(q, lines...)
	}
}
