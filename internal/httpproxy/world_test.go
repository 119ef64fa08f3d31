//lint:file-ignore SA1019 golang.org/x/net/http2 is mended apart from the toolchain and serves one connection without a listener

package httpproxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/ca"
	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/httpproxy"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

// Names of the test internet. The sink serves all of them with a valid certificate.
const (
	ok     = "ok.test.example"   // every request is allowed
	other  = "ok2.test.example"  // allowed as well
	scoped = "path.test.example" // allowed for GET /public/…
	denied = "no.test.example"
)

var rules = []string{ok, other, scoped + " GET /public/"}

// world is an agent's view of a firewall, with a sink upstream that remembers all.
type world struct {
	t       testing.TB
	gate    *enforce.Gate
	proxy   *httpproxy.Server
	addr    string
	trust   *x509.CertPool // the instance's CA
	sink    *sink
	events  *recorder
	mu      sync.Mutex
	dialed  []string
	dialErr error
}

type recorder struct {
	mu     sync.Mutex
	events []audit.Event
	more   chan struct{}
}

func (r *recorder) Record(e audit.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	close(r.more)
	r.more = make(chan struct{})
}

// wait returns the first event that f accepts.
func (r *recorder) wait(t testing.TB, what string, f func(audit.Event) bool) audit.Event {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		r.mu.Lock()
		for _, e := range r.events {
			if f(e) {
				r.mu.Unlock()
				return e
			}
		}
		more := r.more
		all := fmt.Sprintf("%+v", r.events)
		r.mu.Unlock()
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("no event %s among %s", what, all)
		}
	}
}

func (w *world) wantDenied(reason policy.Reason) audit.Event {
	w.t.Helper()
	return w.events.wait(w.t, "denied with "+string(reason), func(e audit.Event) bool {
		return e.Verdict == audit.Deny && e.Reason == string(reason)
	})
}

func policyOf(t testing.TB, lines ...string) *policy.Policy {
	t.Helper()
	var list []policy.Rule
	for i, line := range lines {
		host, path, scopedLine := strings.Cut(line, " ")
		glob, err := policy.ParseGlob(host)
		if err != nil {
			t.Fatal(err)
		}
		rule := policy.Rule{Host: glob, Where: fmt.Sprintf("allowed-https.txt:%d", i+1)}
		if scopedLine {
			if rule.Path, err = policy.CompilePath(path); err != nil {
				t.Fatal(err)
			}
		}
		list = append(list, rule)
	}
	return policy.New(policy.Rules{policy.KindHTTPS: list})
}

func authority(t testing.TB) (*ca.Authority, *x509.CertPool) {
	t.Helper()
	cert, key, err := ca.Create("default")
	if err != nil {
		t.Fatal(err)
	}
	a, err := ca.Load(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate())
	return a, pool
}

// option changes the configuration of a world's proxy or sink.
type option func(*httpproxy.Config, *sink)

// build starts a proxy, and a sink that answers with handler.
func build(t testing.TB, handler http.Handler, options ...option) *world {
	t.Helper()
	internetCA, internetRoots := authority(t)
	instance, trust := authority(t)
	w := &world{t: t, gate: enforce.New(), trust: trust, events: &recorder{more: make(chan struct{})}}
	w.gate.Swap(policyOf(t, rules...))
	w.sink = newSink(t, internetCA, handler)
	cfg := httpproxy.Config{
		Gate: w.gate, Dialer: w, Leaves: instance, DenialLeaves: instance, Roots: internetRoots, Audit: w.events,
	}
	for _, o := range options {
		o(&cfg, w.sink)
	}
	w.sink.start()
	w.proxy = httpproxy.New(cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- w.proxy.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := w.proxy.Shutdown(ctx); err != nil {
			t.Errorf("shutting down: %v", err)
		}
		if err := <-served; err != httpproxy.ErrClosed {
			t.Errorf("Serve returned %v", err)
		}
	})
	return w
}

// Dial implements httpproxy.Dialer: every name leads to the sink.
func (w *world) Dial(ctx context.Context, name hostname.Name, port uint16) (net.Conn, error) {
	w.mu.Lock()
	w.dialed = append(w.dialed, fmt.Sprintf("%s:%d", name, port))
	err := w.dialErr
	w.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", w.sink.addr)
}

func (w *world) dials() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.dialed...)
}

// open makes a TLS connection to the proxy as a client of the agent would.
func (w *world) open(serverName string, alpn ...string) *tls.Conn {
	w.t.Helper()
	c, err := w.tryOpen(serverName, alpn...)
	if err != nil {
		w.t.Fatalf("opening TLS to %q: %v", serverName, err)
	}
	return c
}

func (w *world) tryOpen(serverName string, alpn ...string) (*tls.Conn, error) {
	raw, err := net.Dial("tcp", w.addr)
	if err != nil {
		return nil, err
	}
	w.t.Cleanup(func() { raw.Close() })
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	c := tls.Client(raw, &tls.Config{ServerName: serverName, RootCAs: w.trust, NextProtos: alpn})
	return c, c.Handshake()
}

// client is an HTTP client whose connections all go to the proxy.
func (w *world) client() *http.Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", w.addr)
		},
		TLSClientConfig: &tls.Config{RootCAs: w.trust}, DisableCompression: true,
	}
	w.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (w *world) client2() *http.Client {
	t := &http2.Transport{
		DialTLSContext: func(ctx context.Context, _, addr string, _ *tls.Config) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return w.tryOpen(host, "h2")
		},
		DisableCompression: true,
	}
	w.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// send writes raw bytes on a new HTTP/1.1 connection to serverName and reads one response.
func (w *world) send(serverName, bytes string) (*http.Response, string) {
	w.t.Helper()
	c := w.open(serverName)
	if _, err := io.WriteString(c, bytes); err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	method, _, _ := strings.Cut(bytes, " ")
	return readResponse(w.t, bufio.NewReader(c), method)
}

func readResponse(t testing.TB, br *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("reading response: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("reading response body: %v", err)
	}
	return res, string(body)
}

// sink is the whole internet: a TLS server that remembers the connections and
// requests it got.
type sink struct {
	t       testing.TB
	addr    string
	l       net.Listener
	tls     *tls.Config
	handler http.Handler
	// raw, when set, gets HTTP/1.1 connections instead of a server.
	raw func(*tls.Conn)

	mu       sync.Mutex
	names    []string
	open     int
	changed  chan struct{} // closed when open changes
	requests []string
}

func newSink(t testing.TB, a *ca.Authority, handler http.Handler) *sink {
	s := &sink{t: t, handler: handler, changed: make(chan struct{})}
	s.tls = &tls.Config{
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			s.mu.Lock()
			s.names = append(s.names, hello.ServerName)
			s.mu.Unlock()
			return nil, nil
		},
		GetCertificate: a.LeafFor,
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.l, s.addr = l, l.Addr().String()
	return s
}

func (s *sink) start() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.saw(r.Method + " " + r.Host + " " + r.RequestURI)
		if s.handler != nil {
			s.handler.ServeHTTP(w, r)
			return
		}
		fmt.Fprintf(w, "%s %s %s", r.Proto, r.Method, r.RequestURI)
	})
	server := &http.Server{Handler: handler}
	one := &oneByOne{conns: make(chan net.Conn), closed: make(chan struct{}), addr: s.l.Addr()}
	go func() { _ = server.Serve(one) }()
	go func() {
		for {
			raw, err := s.l.Accept()
			if err != nil {
				return
			}
			s.count(1)
			go s.serve(&countedConn{Conn: raw, s: s}, server, one)
		}
	}()
	s.t.Cleanup(func() {
		s.l.Close()
		close(one.closed)
		server.Close()
	})
}

func (s *sink) serve(raw net.Conn, server *http.Server, one *oneByOne) {
	c := tls.Server(raw, s.tls)
	if err := c.Handshake(); err != nil {
		raw.Close()
		return
	}
	switch {
	case c.ConnectionState().NegotiatedProtocol == "h2":
		(&http2.Server{}).ServeConn(c, &http2.ServeConnOpts{BaseConfig: server, Handler: server.Handler})
	case s.raw != nil:
		s.raw(c)
		raw.Close()
	default:
		select {
		case one.conns <- c:
		case <-one.closed:
		}
	}
}

func (s *sink) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += n
	close(s.changed)
	s.changed = make(chan struct{})
}

// countedConn tells the sink when it is closed.
type countedConn struct {
	net.Conn
	s    *sink
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.s.count(-1) })
	return c.Conn.Close()
}

func (s *sink) saw(request string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, request)
}

func (s *sink) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// wantNothing fails when the sink saw as much as a connection.
func (w *world) wantNothing() {
	w.t.Helper()
	if d := w.dials(); len(d) > 0 {
		w.t.Errorf("dialed %v, want nothing", d)
	}
	w.wantNoRequest()
}

func (w *world) wantNoRequest() {
	w.t.Helper()
	if r := w.sink.seen(); len(r) > 0 {
		w.t.Errorf("the sink saw %q, want nothing", r)
	}
}

// oneByOne is a listener of connections that are already open.
type oneByOne struct {
	conns  chan net.Conn
	closed chan struct{}
	addr   net.Addr
}

func (l *oneByOne) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *oneByOne) Close() error   { return nil }
func (l *oneByOne) Addr() net.Addr { return l.addr }

type (
	httpConfig = httpproxy.Config
	connection = *tls.Conn
)

func (w *world) wantAllowed(path string) audit.Event {
	w.t.Helper()
	return w.events.wait(w.t, "allowed for "+path, func(e audit.Event) bool { return e.Verdict == audit.Allow && e.Path == path })
}

func both12(w *world) map[string]*http.Client {
	return map[string]*http.Client{"HTTP/1.1": w.client(), "HTTP/2": w.client2()}
}

func request(t testing.TB, method, url string, header ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}
