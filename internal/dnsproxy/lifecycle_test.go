package dnsproxy_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/dnsproxy"
	"github.com/rootcell-ai/rootcell/internal/dnstest"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

// always answers every query with one public address.
func always(q dnstest.Query) *dns.Msg { return dnstest.Reply(q, "@ 300 IN A 192.88.98.1") }

func TestReloadCountsAtOnce(t *testing.T) {
	l := newLab(t, dnsproxy.Limits{}, always, "ok.example")
	if r := l.ask(t, "udp", "www.ok.example", dns.TypeA); r.Rcode != dns.RcodeSuccess {
		t.Fatalf("before the reload: %s", describe(r))
	}
	l.gate.Swap(rules(t, "other.example"))
	if r := l.ask(t, "udp", "www.ok.example", dns.TypeA); r.Rcode != dns.RcodeRefused {
		t.Errorf("a cached name outlives its rule: %s", describe(r))
	}
	if e := l.events.last(t); e.Reason != string(policy.NoRule) || e.Generation != 2 {
		t.Errorf("recorded %+v", e)
	}
	l.gate.Swap(nil)
	r := l.ask(t, "udp", "www.ok.example", dns.TypeA)
	if got, want := describe(r), "REFUSED; EDE Blocked: blocked by rootcell: allowed-dns.txt is missing or has an error; on the host run: rootcell policy check"; got != want {
		t.Errorf("without a policy:\n got %s\nwant %s", got, want)
	}
	if n := len(l.authority.Queries()); n != 1 {
		t.Errorf("the authority was asked %d times, want once", n)
	}
}

func TestReloadDuringALookupCounts(t *testing.T) {
	var l *lab
	l = newLab(t, dnsproxy.Limits{}, func(q dnstest.Query) *dns.Msg {
		l.gate.Swap(rules(t, "other.example"))
		return always(q)
	}, "ok.example")
	if r := l.ask(t, "udp", "www.ok.example", dns.TypeA); r.Rcode != dns.RcodeRefused {
		t.Errorf("a name whose rule went away during the lookup is answered: %s", describe(r))
	}
}

func TestQueriesAreRebuilt(t *testing.T) {
	l := newLab(t, dnsproxy.Limits{}, always, "ok.example")
	m := new(dns.Msg)
	m.SetQuestion("wWw.Ok.ExAmPlE.", dns.TypeA)
	m.Id = 0x4242
	m.CheckingDisabled, m.AuthenticatedData, m.Zero = true, true, true
	m.SetEdns0(4096, true)
	opt := m.IsEdns0()
	opt.Option = append(opt.Option,
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(9, 9, 9, 0)},
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "deadbeefdeadbeef"},
		&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("canary-of-the-agent")})
	r := l.send(t, "udp", m)
	if r.Rcode != dns.RcodeSuccess || r.Id != m.Id || r.Question[0].Name != "wWw.Ok.ExAmPlE." || r.Answer[0].Header().Name != "wWw.Ok.ExAmPlE." {
		t.Errorf("the client gets %v", r)
	}
	queries := l.authority.Queries()
	if len(queries) != 1 {
		t.Fatalf("the authority was asked %d times", len(queries))
	}
	got := queries[0].Msg
	up := got.IsEdns0()
	if up == nil || len(up.Option) != 0 || up.Do() || up.UDPSize() != 1232 || len(got.Extra) != 1 {
		t.Errorf("upstream saw EDNS %v", got.Extra)
	}
	if got.CheckingDisabled || got.AuthenticatedData || got.Zero || !got.RecursionDesired || got.Question[0].Qclass != dns.ClassINET {
		t.Errorf("upstream saw flags of the client: %v", got.MsgHdr)
	}
	if packed, err := got.Pack(); err != nil || strings.Contains(string(packed), "canary") {
		t.Errorf("upstream saw the client's options (%v)", err)
	}
}

// raw sends bytes over UDP and returns the response, nil when none came before
// that of a proper query that follows them.
func (l *lab) raw(t *testing.T, msg []byte) []byte {
	t.Helper()
	conn, err := net.Dial("udp4", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var probe dns.Msg
	probe.SetQuestion("probe.denied.example.", dns.TypeA)
	probe.Id = 0xfefe
	wire, err := probe.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{msg, wire} {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if binary.BigEndian.Uint16(buf) == probe.Id {
		return nil
	}
	return buf[:n]
}

func TestOddMessagesAreRefused(t *testing.T) {
	l := newLab(t, dnsproxy.Limits{}, always, "ok.example")
	header := func(flags, qd, an, ns, ar uint16) []byte {
		b := []byte{0x12, 0x34}
		for _, v := range []uint16{flags, qd, an, ns, ar} {
			b = binary.BigEndian.AppendUint16(b, v)
		}
		return b
	}
	question := "\x03www\x02ok\x07example\x00\x00\x01\x00\x01"
	chaos := "\x03www\x02ok\x07example\x00\x00\x10\x00\x03"
	opt := "\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00"
	badVersion := "\x00\x00\x29\x10\x00\x00\x01\x00\x00\x00\x00"
	l.ask(t, "udp", "www.ok.example", dns.TypeA) // from now on it is answered at once
	tests := map[string]struct {
		msg  []byte
		want int // response code, -1: no response
	}{
		"nothing":                          {nil, -1},
		"half a header":                    {header(0x0100, 1, 0, 0, 0)[:7], -1},
		"a response":                       {append(header(0x8100, 1, 0, 0, 0), question...), -1},
		"a header alone":                   {header(0x0100, 1, 0, 0, 0), dns.RcodeFormatError},
		"no question":                      {header(0x0100, 0, 0, 0, 0), dns.RcodeFormatError},
		"two questions":                    {append(append(header(0x0100, 2, 0, 0, 0), question...), question...), dns.RcodeFormatError},
		"an answer in the query":           {append(append(header(0x0100, 1, 1, 0, 0), question...), "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04abcd"...), dns.RcodeFormatError},
		"an update":                        {append(header(0x2800, 1, 0, 0, 0), question...), dns.RcodeRefused},
		"a notify":                         {append(header(0x2000, 1, 0, 0, 0), question...), dns.RcodeRefused},
		"an inverse query":                 {append(header(0x0800, 1, 0, 0, 0), question...), dns.RcodeRefused},
		"class CHAOS of an allowed name":   {append(header(0x0100, 1, 0, 0, 0), chaos...), dns.RcodeRefused},
		"bytes after the message":          {append(append(header(0x0100, 1, 0, 0, 0), question...), "smuggled"...), dns.RcodeFormatError},
		"bytes after OPT":                  {append(append(header(0x0100, 1, 0, 0, 1), question...), opt+"x"...), dns.RcodeFormatError},
		"two OPT records":                  {append(append(header(0x0100, 1, 0, 0, 2), question...), opt+opt...), dns.RcodeFormatError},
		"an additional record of a kind":   {append(append(header(0x0100, 1, 0, 0, 1), question...), strings.Replace(opt, "\x29", "\xfa", 1)...), dns.RcodeFormatError},
		"EDNS of the future":               {append(append(header(0x0100, 1, 0, 0, 1), question...), badVersion...), dns.RcodeBadVers},
		"a pointer to itself":              {append(header(0x0100, 1, 0, 0, 0), "\xc0\x0c\x00\x01\x00\x01"...), dns.RcodeFormatError},
		"a label that runs out":            {append(header(0x0100, 1, 0, 0, 0), "\x3fshort"...), dns.RcodeFormatError},
		"a label of 64":                    {append(header(0x0100, 1, 0, 0, 0), "\x40"+strings.Repeat("a", 64)+"\x00\x00\x01\x00\x01"...), dns.RcodeFormatError},
		"a name of 256":                    {append(header(0x0100, 1, 0, 0, 0), strings.Repeat("\x0f"+strings.Repeat("a", 15), 16)+"\x00\x00\x01\x00\x01"...), dns.RcodeFormatError},
		"a name of a hundred labels":       {append(header(0x0100, 1, 0, 0, 0), strings.Repeat("\x01a", 100)+"\x00\x00\x01\x00\x01"...), dns.RcodeRefused},
		"a proper query without recursion": {append(header(0, 1, 0, 0, 0), question...), dns.RcodeSuccess},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := l.raw(t, test.msg)
			got := -1
			if r != nil {
				var m dns.Msg
				if err := m.Unpack(r); err != nil {
					t.Fatalf("reading the response: %v", err)
				}
				got = m.Rcode
				if m.Id != 0x1234 || !m.Response {
					t.Errorf("response has header %v", m.MsgHdr)
				}
			}
			if got != test.want {
				t.Errorf("response code %d, want %d", got, test.want)
			}
		})
	}
	if names := l.authority.Names(); !slices.Equal(names, []string{"www.ok.example"}) {
		t.Errorf("the authority was asked for %q", names)
	}
}

func TestLongAnswersGoOverTCP(t *testing.T) {
	var records []string
	for i := range 60 {
		records = append(records, fmt.Sprintf("@ 60 IN A 192.88.98.%d", i))
	}
	l := newLab(t, dnsproxy.Limits{}, dnstest.Zone(map[string][]string{"many.ok.example": records}), "ok.example")
	m := new(dns.Msg)
	m.SetQuestion("many.ok.example.", dns.TypeA)
	if r := l.send(t, "udp", m); !r.Truncated || len(r.Answer) != 0 {
		t.Errorf("a client of 512 bytes gets %d answers, truncated: %v", len(r.Answer), r.Truncated)
	}
	if r := l.ask(t, "udp", "many.ok.example", dns.TypeA); r.Truncated || len(r.Answer) != 60 {
		t.Errorf("a client of 1232 bytes gets %d answers, truncated: %v", len(r.Answer), r.Truncated)
	}
	if r := l.send(t, "tcp", m); r.Truncated || len(r.Answer) != 60 {
		t.Errorf("over TCP come %d answers, truncated: %v", len(r.Answer), r.Truncated)
	}
}

func TestRefusalsFitTheSmallestClient(t *testing.T) {
	l := newLab(t, dnsproxy.Limits{}, always, "ok.example")
	long := strings.Repeat(strings.Repeat("a", 60)+".", 4) + "example"
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(long), dns.TypeA)
	m.SetEdns0(512, false)
	r := l.send(t, "udp", m)
	if r.Rcode != dns.RcodeRefused || r.Len() > 512 || !strings.Contains(extendedText(r), "rootcell allow HOST") {
		t.Errorf("%d bytes: %s", r.Len(), describe(r))
	}
	m = new(dns.Msg)
	m.SetQuestion("evil.example.", dns.TypeA)
	if r := l.send(t, "udp", m); r.Rcode != dns.RcodeRefused || len(r.Extra) != 0 {
		t.Errorf("a client without EDNS gets %v", r)
	}
}

func TestUpstreamSilenceIsServfail(t *testing.T) {
	l := newLab(t, dnsproxy.Limits{}, func(q dnstest.Query) *dns.Msg { return dnstest.Fail(q, dns.RcodeRefused) }, "ok.example")
	r := l.ask(t, "udp", "www.ok.example", dns.TypeA)
	if r.Rcode != dns.RcodeServerFailure || l.events.last(t).Reason != string(policy.UpstreamUnreachable) {
		t.Errorf("got %s, recorded %+v", describe(r), l.events.last(t))
	}
}

func TestTheRuleForEverythingLeavesOutWhatIsNotPublic(t *testing.T) {
	l := newLab(t, dnsproxy.Limits{}, always, "*")
	for _, name := range []string{"1.0.0.10.in-addr.arpa", "printer.local", "x.onion", "vpc.internal", "a.localhost", "wpad.corp.example"} {
		if r := l.ask(t, "udp", name, dns.TypeA); r.Rcode != dns.RcodeRefused {
			t.Errorf("%s: %s", name, describe(r))
		}
	}
	if n := len(l.authority.Queries()); n != 0 {
		t.Errorf("the authority was asked %d times", n)
	}
	if r := l.ask(t, "udp", "any.where.example", dns.TypeA); r.Rcode != dns.RcodeSuccess {
		t.Errorf("a public name: %s", describe(r))
	}
	l.gate.Swap(rules(t, "corp.internal"))
	if r := l.ask(t, "udp", "git.corp.internal", dns.TypeA); r.Rcode != dns.RcodeSuccess {
		t.Errorf("a listed internal name: %s", describe(r))
	}
}

func TestSlowAndIdleTCPClientsAreClosed(t *testing.T) {
	l := newLab(t, dnsproxy.Limits{TCPIdle: 150 * time.Millisecond, TCPConnections: 3}, always, "ok.example")
	var conns []net.Conn
	for _, sent := range []string{"", "\x00", "\x00\x20half a query"} {
		conn, err := net.Dial("tcp4", l.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, sent); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for i, conn := range conns {
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d is still open (%v)", i, err)
		}
	}
	// Their places are free again.
	deadline := time.Now().Add(5 * time.Second)
	for {
		var m dns.Msg
		m.SetQuestion("www.ok.example.", dns.TypeA)
		if _, _, err := (&dns.Client{Net: "tcp"}).Exchange(&m, l.addr); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("after the slow clients nobody is served: %v", err)
		}
	}
}

func TestConnectionsAboveTheLimitAreClosed(t *testing.T) {
	l := newLab(t, dnsproxy.Limits{TCPConnections: 2}, always, "ok.example")
	for range 2 {
		conn, err := (&dns.Client{Net: "tcp"}).Dial(l.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var m dns.Msg
		m.SetQuestion("www.ok.example.", dns.TypeA)
		if err := conn.WriteMsg(&m); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.ReadMsg(); err != nil {
			t.Fatalf("within the limit: %v", err)
		}
	}
	conn, err := net.Dial("tcp4", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a third connection is open (%v)", err)
	}
	if e := l.events.last(t); e.Reason != string(policy.Limit) {
		t.Errorf("recorded %+v", e)
	}
}

func TestQueriesAboveTheLimitAreTurnedAway(t *testing.T) {
	hold := make(chan struct{})
	l := newLab(t, dnsproxy.Limits{InFlight: 1}, func(q dnstest.Query) *dns.Msg {
		<-hold
		return always(q)
	}, "ok.example")
	first := make(chan *dns.Msg)
	go func() { first <- l.ask(t, "udp", "a.ok.example", dns.TypeA) }()
	<-l.authority.Asked()
	if r := l.ask(t, "udp", "b.ok.example", dns.TypeA); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("the second query: %s", describe(r))
	}
	if r := l.ask(t, "udp", "denied.example", dns.TypeA); r.Rcode != dns.RcodeRefused {
		t.Errorf("a denial while upstream is slow: %s", describe(r))
	}
	close(hold)
	if r := <-first; r.Rcode != dns.RcodeSuccess {
		t.Errorf("the first query: %s", describe(r))
	}
}

func TestShutdownEndsLookupsAndConnections(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	l := newLab(t, dnsproxy.Limits{}, func(dnstest.Query) *dns.Msg {
		<-hold
		return nil
	}, "ok.example")
	conn, err := net.Dial("tcp4", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var m dns.Msg
	m.SetQuestion("www.ok.example.", dns.TypeA)
	udp, err := dns.Dial("udp", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if err := udp.WriteMsg(&m); err != nil {
		t.Fatal(err)
	}
	<-l.authority.Asked()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := l.server.Shutdown(ctx); err != nil {
		t.Errorf("shutting down with a query and a connection open: %v", err)
	}
}

func TestDigUnderstandsRefusals(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("dig is not installed (dnsutils)")
	}
	l := newLab(t, dnsproxy.Limits{}, always, "ok.example")
	host, port, err := net.SplitHostPort(l.addr)
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), dig, append([]string{"@" + host, "-p", port, "+tries=1"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("dig %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	tests := map[string]struct {
		args []string
		want []string
	}{
		"allowed":                {[]string{"www.ok.example"}, []string{"status: NOERROR", "192.88.98.1"}},
		"allowed over TCP":       {[]string{"+tcp", "www.ok.example"}, []string{"status: NOERROR", "192.88.98.1"}},
		"with subnet and cookie": {[]string{"+subnet=9.9.9.0/24", "+cookie=deadbeefdeadbeef", "www.ok.example"}, []string{"status: NOERROR"}},
		"denied":                 {[]string{"evil.example"}, []string{"status: REFUSED", "EDE: 15 (Blocked)", "allowed-dns.txt", "rootcell allow evil.example"}},
		"denied in capitals":     {[]string{"EVIL.Example"}, []string{"status: REFUSED", "rootcell allow evil.example"}},
		"HTTPS":                  {[]string{"-t", "TYPE65", "www.ok.example"}, []string{"status: NOERROR", "ANSWER: 0"}},
		"reverse":                {[]string{"-x", "10.0.0.1"}, []string{"status: REFUSED"}},
		"the server's version":   {[]string{"-c", "CH", "-t", "TXT", "version.bind"}, []string{"status: REFUSED"}},
		"a zone transfer":        {[]string{"-t", "AXFR", "ok.example"}, []string{"Transfer failed"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			out := run(test.args...)
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("dig %q prints no %q:\n%s", test.args, want, out)
				}
			}
		})
	}
	if names := l.authority.Names(); slices.ContainsFunc(names, func(n string) bool { return n != "www.ok.example" }) {
		t.Errorf("the authority was asked for %q", names)
	}
}
