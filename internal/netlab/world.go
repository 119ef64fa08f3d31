//go:build linux

package netlab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Sighting is one thing that reached the far side.
type Sighting struct {
	Kind string // dns, tls (a ClientHello), https (a request), ssh (a connection), tcp, udp
	Name string // query name, SNI, or authority
	Text string // query type, request line, first bytes
}

// World is everything beyond the firewall: an authoritative resolver, TLS origins under a private root and an SSH
// banner. It records what it sees and is safe for concurrent use.
type World struct {
	ns    *Namespace
	addr  string
	Roots string // PEM of the private root that signs every origin

	mu        sync.Mutex
	sightings []Sighting
	zone      map[string][]dns.RR
	answers   map[string]func() []dns.RR
	configs   map[string]*tls.Config
	handlers  map[string]http.Handler

	rootCert *x509.Certificate
	rootKey  *ecdsa.PrivateKey
	leaves   sync.Map // name -> *tls.Certificate
}

// NewWorld starts the far side in a namespace that has the address: DNS on udp and tcp 53, TLS on 443, an SSH banner on
// 22 and recorders on ports that nothing may ever reach.
func NewWorld(tb testing.TB, ns *Namespace, addr string) *World {
	tb.Helper()
	w := &World{ns: ns, addr: addr, zone: map[string][]dns.RR{}, handlers: map[string]http.Handler{},
		answers: map[string]func() []dns.RR{}, configs: map[string]*tls.Config{}}
	w.makeRoot(tb)
	w.serveDNS(tb)
	w.serveTLS(tb)
	w.serveBanner(tb)
	for _, port := range []string{"80", "25", "853", "8443", "2222", "9418"} {
		w.record(tb, "tcp", port)
	}
	for _, port := range []string{"443", "123", "853"} {
		w.record(tb, "udp", port)
	}
	return w
}

// NewSigner returns a world that serves nothing: a private root and the leaves under it, for a far side of one's own.
func NewSigner(tb testing.TB) *World {
	tb.Helper()
	w := &World{}
	w.makeRoot(tb)
	return w
}

// Host adds a name with addresses (the world's own where none are given) and what its TLS origin answers.
func (w *World) Host(tb testing.TB, name string, handler http.Handler, addrs ...string) {
	tb.Helper()
	if len(addrs) == 0 {
		addrs = []string{w.addr}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.zone[dns.Fqdn(name)] = nil
	for _, a := range addrs {
		kind := "A"
		if strings.Contains(a, ":") {
			kind = "AAAA"
		}
		rr, err := dns.NewRR(fmt.Sprintf("%s 60 IN %s %s", dns.Fqdn(name), kind, a))
		if err != nil {
			tb.Fatal(err)
		}
		w.zone[dns.Fqdn(name)] = append(w.zone[dns.Fqdn(name)], rr)
	}
	if handler != nil {
		w.handlers[name] = handler
	}
}

// Record adds a resource record in master-file form.
func (w *World) Record(tb testing.TB, text string) {
	tb.Helper()
	rr, err := dns.NewRR(text)
	if err != nil {
		tb.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.zone[rr.Header().Name] = append(w.zone[rr.Header().Name], rr)
}

// Answer has the name's queries of any type answered by what f returns, which is called once a query.
func (w *World) Answer(name string, f func() []dns.RR) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[dns.Fqdn(name)] = f
}

// TLS has the name's connections served with the configuration instead of the world's own.
func (w *World) TLS(name string, config *tls.Config) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.configs[name] = config
}

// Sightings returns what has arrived so far and matches every given substring in kind, name or text.
func (w *World) Sightings(substrings ...string) []Sighting {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []Sighting
next:
	for _, s := range w.sightings {
		line := s.Kind + " " + s.Name + " " + s.Text
		for _, sub := range substrings {
			if !strings.Contains(line, sub) {
				continue next
			}
		}
		found = append(found, s)
	}
	return found
}

// Forget drops everything seen so far.
func (w *World) Forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sightings = nil
}

func (w *World) saw(kind, name, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sightings = append(w.sightings, Sighting{kind, name, text})
}

func (w *World) makeRoot(tb testing.TB) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "netlab root"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	w.rootCert, err = x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	w.rootKey = key
	w.Roots = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// Leaf returns a server certificate for the name, signed by the private root.
func (w *World) Leaf(name string) (*tls.Certificate, error) {
	if c, ok := w.leaves.Load(name); ok {
		return c.(*tls.Certificate), nil
	}
	return w.issue(name, time.Now().Add(time.Hour))
}

// Expire makes the name's origin present a certificate that ended a minute ago.
func (w *World) Expire(tb testing.TB, name string) {
	tb.Helper()
	if _, err := w.issue(name, time.Now().Add(-time.Minute)); err != nil {
		tb.Fatal(err)
	}
}

func (w *World) issue(name string, notAfter time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, w.rootCert, &key.PublicKey, w.rootKey)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	w.leaves.Store(name, c)
	return c, nil
}

func (w *World) serveDNS(tb testing.TB) {
	tb.Helper()
	pc, err := w.ns.ListenPacket("udp4", w.addr+":53")
	if err != nil {
		tb.Fatal(err)
	}
	ln, err := w.ns.Listen("tcp4", w.addr+":53")
	if err != nil {
		tb.Fatal(err)
	}
	handler := dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		if len(q.Question) == 1 {
			question := q.Question[0]
			name := strings.ToLower(question.Name)
			w.saw("dns", strings.TrimSuffix(name, "."), dns.TypeToString[question.Qtype])
			w.mu.Lock()
			records, known := w.zone[name]
			f := w.answers[name]
			w.mu.Unlock()
			if f != nil {
				answer.Answer = f()
				_ = rw.WriteMsg(answer)
				return
			}
			if !known {
				answer.Rcode = dns.RcodeNameError
			}
			for _, rr := range records {
				if t := rr.Header().Rrtype; t == question.Qtype || t == dns.TypeCNAME {
					rr := dns.Copy(rr)
					rr.Header().Name = question.Name
					answer.Answer = append(answer.Answer, rr)
				}
			}
		}
		_ = rw.WriteMsg(answer)
	})
	for _, server := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: ln, Handler: handler}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() { _ = server.ActivateAndServe() }()
		<-started
		tb.Cleanup(func() { _ = server.Shutdown() })
	}
}

func (w *World) serveTLS(tb testing.TB) {
	tb.Helper()
	ln, err := w.ns.Listen("tcp4", "0.0.0.0:443")
	if err != nil {
		tb.Fatal(err)
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.saw("https", r.Host, r.Proto+" "+r.Method+" "+r.RequestURI)
			w.mu.Lock()
			handler := w.handlers[strings.TrimSuffix(r.Host, ":443")]
			w.mu.Unlock()
			if handler == nil {
				handler = http.HandlerFunc(echo)
			}
			handler.ServeHTTP(rw, r)
		}),
		TLSConfig: &tls.Config{
			GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if config := w.configs[h.ServerName]; config != nil {
					w.sightings = append(w.sightings, Sighting{"tls", h.ServerName, strings.Join(h.SupportedProtos, ",")})
					return config, nil
				}
				return nil, nil
			},
			GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
				w.saw("tls", h.ServerName, strings.Join(h.SupportedProtos, ","))
				return w.Leaf(h.ServerName)
			},
			NextProtos: []string{"h2", "http/1.1"},
		},
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // clients are expected to misbehave
	}
	go func() { _ = server.ServeTLS(ln, "", "") }()
	tb.Cleanup(func() { _ = server.Close() })
}

// echo answers with what it was asked.
func echo(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Content-Type", "text/plain")
	_, _ = fmt.Fprintf(rw, "%s %s %s\n", r.Host, r.Method, r.RequestURI)
	_, _ = io.Copy(rw, r.Body)
}

// serveBanner is an SSH server as far as its identification string.
func (w *World) serveBanner(tb testing.TB) {
	tb.Helper()
	w.accept(tb, "22", func(c net.Conn) {
		w.saw("ssh", "", c.RemoteAddr().String())
		_, _ = io.WriteString(c, "SSH-2.0-netlab\r\n")
		buffer := make([]byte, 256)
		n, _ := c.Read(buffer)
		w.saw("ssh-client", "", string(buffer[:n]))
	})
}

// record notes whatever reaches a port that must stay silent.
func (w *World) record(tb testing.TB, network, port string) {
	tb.Helper()
	if network == "tcp" {
		w.accept(tb, port, func(c net.Conn) { w.saw("tcp", port, c.RemoteAddr().String()) })
		return
	}
	pc, err := w.ns.ListenPacket("udp4", "0.0.0.0:"+port)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = pc.Close() })
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, _, err := pc.ReadFrom(buffer)
			if err != nil {
				return
			}
			w.saw("udp", port, string(buffer[:n]))
		}
	}()
}

func (w *World) accept(tb testing.TB, port string, serve func(net.Conn)) {
	tb.Helper()
	ln, err := w.ns.Listen("tcp4", "0.0.0.0:"+port)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			go func() {
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				serve(c)
			}()
		}
	}()
}
