package sshproxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/upstream"
)

// world is what lies beyond the proxy: a server that records what reaches it.
type world struct {
	t        *testing.T
	listener net.Listener
	err      error // of Dial, when set
	conns    chan net.Conn

	mu     sync.Mutex
	dialed []string
}

func newWorld(t *testing.T) *world {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, listener: listener, conns: make(chan net.Conn, 16)}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			w.conns <- conn
		}
	}()
	t.Cleanup(func() { listener.Close() })
	return w
}

func (w *world) Dial(ctx context.Context, host hostname.Name, port uint16) (net.Conn, error) {
	w.mu.Lock()
	w.dialed = append(w.dialed, fmt.Sprintf("%s:%d", host, port))
	w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", w.listener.Addr().String())
}

func (w *world) dials() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dialed
}

// server returns the next connection that reached the far side.
func (w *world) server() net.Conn {
	w.t.Helper()
	select {
	case conn := <-w.conns:
		w.t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		return conn
	case <-time.After(10 * time.Second):
		w.t.Fatal("nothing reached the far side")
		return nil
	}
}

type recorder chan audit.Event

func (r recorder) Record(e audit.Event) { r <- e }

func (r recorder) next(t *testing.T) audit.Event {
	t.Helper()
	select {
	case e := <-r:
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no audit event")
		return audit.Event{}
	}
}

func allow(t *testing.T, hosts ...string) *policy.Policy {
	t.Helper()
	rules := policy.Rules{policy.KindSSH: {}}
	for i, host := range hosts {
		pattern, err := policy.ParseGlob(host)
		if err != nil {
			t.Fatal(err)
		}
		rules[policy.KindSSH] = append(rules[policy.KindSSH], policy.Rule{Host: pattern, Where: fmt.Sprintf("allowed-ssh.txt:%d", i+1)})
	}
	return policy.New(rules)
}

type proxy struct {
	*Server
	t      *testing.T
	world  *world
	gate   *enforce.Gate
	events recorder
	addr   string
}

func newProxy(t *testing.T, change func(*Config)) *proxy {
	t.Helper()
	p := &proxy{t: t, world: newWorld(t), gate: enforce.New(), events: make(recorder, 64)}
	p.gate.Swap(allow(t, "git.test"))
	config := Config{Gate: p.gate, Dialer: p.world, Audit: p.events, Log: slog.New(slog.DiscardHandler), Instance: "default"}
	if change != nil {
		change(&config)
	}
	p.Server = New(config)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = listener.Addr().String()
	done := make(chan error, 1)
	go func() { done <- p.Serve(listener) }()
	t.Cleanup(func() {
		listener.Close()
		if err := p.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *proxy) dial(sent string) net.Conn {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, sent); err != nil {
		p.t.Fatal(err)
	}
	return conn
}

func (p *proxy) ask(sent string) (*http.Response, string) {
	p.t.Helper()
	conn := p.dial(sent)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return response, string(body)
}

const (
	connect = "CONNECT git.test:22 HTTP/1.1\r\nHost: git.test:22\r\n\r\n"
	hello   = "SSH-2.0-test\r\n"
)

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, conn io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got[:n], err, want)
	}
}

// open brings a tunnel up to the point where both sides have spoken.
func (p *proxy) open() (client, server net.Conn) {
	p.t.Helper()
	client = p.dial(connect)
	server = p.world.server()
	send(p.t, server, hello)
	expect(p.t, client, established+hello)
	send(p.t, client, hello)
	expect(p.t, server, hello)
	return client, server
}

func TestTunnelRelaysBothWaysWithHalfClose(t *testing.T) {
	p := newProxy(t, nil)
	client, server := p.open()
	send(t, client, "up")
	expect(t, server, "up")
	client.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(server); err != nil || len(rest) != 0 {
		t.Errorf("the server read %q, %v, want the end of the stream", rest, err)
	}
	large := strings.Repeat("down", 1<<20)
	send(t, server, large)
	server.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != large {
		t.Errorf("the client read %d octets, %v, want %d", len(got), err, len(large))
	}
	e := p.events.next(t)
	want := audit.Event{Instance: "default", Generation: 1, Kind: "ssh", Verdict: "allow", Rule: "allowed-ssh.txt:1",
		Host: "git.test", Port: 22, Method: "CONNECT", Upstream: p.world.listener.Addr().String(), Status: 200,
		BytesUp: int64(len(hello) + 2), BytesDown: int64(len(hello) + len(large)), Opaque: true,
		Time: e.Time, Conn: e.Conn, DurationMS: e.DurationMS}
	if e != want {
		t.Errorf("audited %+v\nwant    %+v", e, want)
	}
	if got := p.world.dials(); len(got) != 1 || got[0] != "git.test:22" {
		t.Errorf("dialed %v", got)
	}
}

func TestNothingReachesTheServerBeforeBothBanners(t *testing.T) {
	p := newProxy(t, nil)
	client := p.dial(connect + hello + "early")
	server := p.world.server()
	_ = server.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, _ := server.Read(make([]byte, 1)); n != 0 {
		t.Fatal("bytes of the client arrived before the server had identified itself")
	}
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
	send(t, server, "warning: logged\r\n"+hello+"kex")
	expect(t, client, established+"warning: logged\r\n"+hello+"kex")
	expect(t, server, hello+"early")
}

func TestOtherProtocolsInsideATunnelReachNobody(t *testing.T) {
	for name, bytes := range map[string]string{
		"TLS":               "\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
		"HTTP":              "GET / HTTP/1.1\r\nHost: git.test\r\n\r\n",
		"SOCKS":             "\x05\x01\x00",
		"SSH 1":             "SSH-1.5-old\r\n",
		"SSH 1.99":          "SSH-1.99-old\r\n",
		"a line before":     "hello\r\nSSH-2.0-x\r\n",
		"an endless banner": "SSH-2.0-" + strings.Repeat("a", 300),
		"a NUL in a banner": "SSH-2.0-a\x00b\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, nil)
			client := p.dial(connect + bytes)
			server := p.world.server()
			send(t, server, hello)
			if got, _ := io.ReadAll(server); len(got) != 0 {
				t.Errorf("the server saw %q", got)
			}
			expect(t, client, established+hello)
			if e := p.events.next(t); e.Verdict != "deny" || e.Reason != "not-ssh" || e.BytesUp != 0 {
				t.Errorf("audited %+v", e)
			}
		})
	}
}

func TestServersThatAreNotSSHAreRefused(t *testing.T) {
	for name, greeting := range map[string]string{
		"HTTP":            "HTTP/1.1 400 Bad Request\r\n\r\n",
		"SSH 1":           "SSH-1.5-old\r\n",
		"endless lines":   strings.Repeat("line\r\n", 100),
		"an endless line": strings.Repeat("a", maxGreeting+1024),
		"nothing":         "",
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, nil)
			client := p.dial(connect + hello)
			server := p.world.server()
			send(t, server, greeting)
			server.(*net.TCPConn).CloseWrite()
			response, err := http.ReadResponse(bufio.NewReader(client), nil)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != http.StatusBadGateway || response.Header.Get("Rootcell-Deny") != "not-ssh" {
				t.Errorf("answered %s, %s", response.Status, response.Header.Get("Rootcell-Deny"))
			}
			if got, _ := io.ReadAll(server); len(got) != 0 {
				t.Errorf("the server saw %q", got)
			}
		})
	}
}

func TestServersOfBothVersionsAreAccepted(t *testing.T) {
	p := newProxy(t, nil)
	client := p.dial(connect + hello)
	server := p.world.server()
	send(t, server, "SSH-1.99-both\n")
	expect(t, client, established+"SSH-1.99-both\n")
	expect(t, server, hello)
}

func TestRefusals(t *testing.T) {
	name, err := hostname.Parse("git.test")
	if err != nil {
		t.Fatal(err)
	}
	for text, test := range map[string]struct {
		sent    string
		dialErr error
		status  int
		reason  policy.Reason
		body    string
		dials   int
	}{
		"a host that no rule allows": {"CONNECT evil.test:22 HTTP/1.1\r\nHost: evil.test:22\r\n\r\n", nil, 403, policy.NoRule, "rootcell allow --ssh evil.test", 0},
		"the metadata address":       {"CONNECT 169.254.169.254:22 HTTP/1.1\r\nHost: 169.254.169.254:22\r\n\r\n", nil, 400, policy.Malformed, "IP address", 0},
		"another port":               {"CONNECT git.test:443 HTTP/1.1\r\nHost: git.test:443\r\n\r\n", nil, 403, policy.Port, "only port 22", 0},
		"a body":                     {"CONNECT git.test:22 HTTP/1.1\r\nHost: git.test:22\r\nContent-Length: 9\r\n\r\nSSH-2.0-x", nil, 400, policy.Malformed, "body", 0},
		"a GET":                      {"GET http://git.test/ HTTP/1.1\r\nHost: git.test\r\n\r\n", nil, 405, policy.Cleartext, "cleartext", 0},
		"HTTP/2":                     {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", nil, 400, policy.Malformed, "HTTP/1.1", 0},
		"TLS":                        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", nil, 400, policy.Malformed, "CONNECT", 0},
		"SSH without CONNECT":        {hello, nil, 400, policy.Malformed, "CONNECT", 0},
		"an endless head":            {connect[:len(connect)-2] + "A: " + strings.Repeat("a", maxHead) + "\r\n\r\n", nil, 431, policy.Limit, "too long", 0},
		"a special address":          {connect, &upstream.SpecialAddressError{Name: name}, 403, policy.SpecialAddress, "allow_private", 1},
		"a name that is not there":   {connect, &upstream.NotFoundError{Name: name, Rcode: 3}, 502, policy.UpstreamUnreachable, "cannot be reached", 1},
		"a busy resolver":            {connect, upstream.ErrBusy, 503, policy.Limit, "try again", 1},
	} {
		t.Run(text, func(t *testing.T) {
			p := newProxy(t, nil)
			p.world.err = test.dialErr
			response, body := p.ask(test.sent)
			if response.StatusCode != test.status || response.Header.Get("Rootcell-Deny") != string(test.reason) {
				t.Errorf("answered %s, %s, want %d %s", response.Status, response.Header.Get("Rootcell-Deny"), test.status, test.reason)
			}
			if !strings.Contains(body, test.body) {
				t.Errorf("explained with %q, want %q in it", body, test.body)
			}
			if got := p.world.dials(); len(got) != test.dials {
				t.Errorf("dialed %v, want %d dials", got, test.dials)
			}
			if e := p.events.next(t); e.Verdict != "deny" || e.Reason != string(test.reason) || e.Status != test.status {
				t.Errorf("audited %+v", e)
			}
		})
	}
}

func TestDenialsExplainThemselves(t *testing.T) {
	p := newProxy(t, func(c *Config) { c.Instance = "work" })
	response, body := p.ask("CONNECT evil.test:22 HTTP/1.1\r\nHost: evil.test:22\r\nAccept: application/json\r\n\r\n")
	want := denial{Denied: true, Reason: policy.NoRule, Meaning: policy.NoRule.Meaning(), Kind: policy.KindSSH,
		Host: "evil.test", List: "allowed-ssh.txt", Detail: "SSH to evil.test is not allowed",
		Command: "rootcell -i work allow --ssh evil.test"}
	var got denial
	if err := json.Unmarshal([]byte(body), &got); err != nil || got != want {
		t.Errorf("explained with %+v, %v, want %+v", got, err, want)
	}
	if !strings.Contains(response.Status, want.Command) {
		t.Errorf("the status line %q does not say what to run", response.Status)
	}
}

func TestResetStyleSaysNothing(t *testing.T) {
	p := newProxy(t, func(c *Config) { c.Reset = true })
	conn := p.dial("CONNECT evil.test:22 HTTP/1.1\r\nHost: evil.test:22\r\n\r\n")
	if got, err := io.ReadAll(conn); err == nil || len(got) != 0 {
		t.Errorf("read %q, %v, want a reset", got, err)
	}
	if e := p.events.next(t); e.Reason != "no-rule" {
		t.Errorf("audited %+v", e)
	}
}

func TestWithoutAPolicyEverythingIsDenied(t *testing.T) {
	p := newProxy(t, nil)
	p.gate.Swap(nil)
	response, body := p.ask(connect)
	if response.StatusCode != http.StatusForbidden || response.Header.Get("Rootcell-Deny") != "bad-policy" {
		t.Errorf("answered %s: %s", response.Status, body)
	}
	if got := p.world.dials(); len(got) != 0 {
		t.Errorf("dialed %v", got)
	}
}

func TestRevocationClosesOpenTunnels(t *testing.T) {
	p := newProxy(t, nil)
	client, server := p.open()
	start := time.Now()
	p.gate.Swap(allow(t, "other.test"))
	_, _ = io.ReadAll(client)
	_, _ = io.ReadAll(server)
	if took := time.Since(start); took > time.Second {
		t.Errorf("closed after %s, want within a second", took)
	}
	if e := p.events.next(t); e.Verdict != "deny" || e.Reason != "revoked" || e.BytesUp != int64(len(hello)) {
		t.Errorf("audited %+v", e)
	}
}

func TestRevocationReachesATunnelThatIsBeingOpened(t *testing.T) {
	p := newProxy(t, nil)
	client := p.dial(connect)
	server := p.world.server() // dialled, not identified yet
	p.gate.Swap(allow(t))
	if got, _ := io.ReadAll(server); len(got) != 0 {
		t.Errorf("the server saw %q", got)
	}
	if got, _ := io.ReadAll(client); bytes.Contains(got, []byte(" 200 ")) {
		t.Errorf("the client was let in: %q", got)
	}
	if e := p.events.next(t); e.Reason != "revoked" {
		t.Errorf("audited %+v", e)
	}
}

func TestTunnelsThatAreStillAllowedSurviveAReload(t *testing.T) {
	p := newProxy(t, nil)
	client, server := p.open()
	p.gate.Swap(allow(t, "*.other.test", "git.test"))
	send(t, client, "still")
	expect(t, server, "still")
}

func TestIdleAndSilentConnectionsEnd(t *testing.T) {
	t.Run("an idle tunnel", func(t *testing.T) {
		p := newProxy(t, func(c *Config) { c.IdleTimeout = 100 * time.Millisecond })
		client, _ := p.open()
		if _, err := client.Read(make([]byte, 1)); err == nil {
			t.Error("the tunnel stayed open")
		}
	})
	t.Run("a request that does not come", func(t *testing.T) {
		p := newProxy(t, func(c *Config) { c.HeadTimeout = 50 * time.Millisecond })
		if response, _ := p.ask("CONNECT "); response.StatusCode != http.StatusRequestTimeout {
			t.Errorf("answered %s", response.Status)
		}
	})
	t.Run("a server that stays silent", func(t *testing.T) {
		p := newProxy(t, func(c *Config) { c.BannerTimeout = 50 * time.Millisecond })
		if response, _ := p.ask(connect); response.StatusCode != http.StatusBadGateway {
			t.Errorf("answered %s", response.Status)
		}
	})
	t.Run("a client that stays silent", func(t *testing.T) {
		p := newProxy(t, func(c *Config) { c.BannerTimeout = 50 * time.Millisecond })
		client := p.dial(connect)
		send(t, p.world.server(), hello)
		expect(t, client, established+hello)
		if _, err := client.Read(make([]byte, 1)); err == nil {
			t.Error("the tunnel stayed open")
		}
	})
	t.Run("not a tunnel that is used in one direction", func(t *testing.T) {
		p := newProxy(t, func(c *Config) { c.IdleTimeout = 200 * time.Millisecond })
		client, server := p.open()
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for range 40 {
			<-ticker.C
			send(t, server, "x")
			expect(t, client, "x")
		}
	})
}

func TestConnectionsBeyondTheLimitAreToldSo(t *testing.T) {
	p := newProxy(t, func(c *Config) { c.MaxConns = 1 })
	client, server := p.open()
	response, body := p.ask(connect)
	if response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "too many") {
		t.Errorf("answered %s: %s", response.Status, body)
	}
	send(t, client, "still")
	expect(t, server, "still")
}

// flaky is a listener that runs out of file descriptors before each connection.
type flaky struct {
	net.Listener
	failed bool
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.failed = !f.failed; f.failed {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

func TestServingSurvivesALackOfFileDescriptors(t *testing.T) {
	s := New(Config{Gate: enforce.New(), Dialer: newWorld(t), Audit: audit.Discard{}, Log: slog.New(slog.DiscardHandler)})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(&flaky{Listener: listener}) }()
	for range 3 {
		p := &proxy{Server: s, t: t, addr: listener.Addr().String()}
		if response, _ := p.ask(connect); response.StatusCode != http.StatusForbidden {
			t.Errorf("answered %s", response.Status)
		}
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	listener.Close()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

// panicking is a Dialer with a defect.
type panicking struct{}

func (panicking) Dial(context.Context, hostname.Name, uint16) (net.Conn, error) { panic("defect") }

func TestAPanicEndsOneConnectionOnly(t *testing.T) {
	p := newProxy(t, func(c *Config) { c.Dialer = panicking{} })
	for range 2 {
		if got, _ := io.ReadAll(p.dial(connect)); len(got) != 0 {
			t.Errorf("answered %q", got)
		}
	}
	if response, _ := p.ask("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"); response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("answered %s", response.Status)
	}
}
