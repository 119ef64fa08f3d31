package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/crypto/ssh"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/ca"
	"github.com/rootcell-ai/rootcell/internal/dnstest"
)

// farAddr is where every host of the far side is; special.test is elsewhere.
const (
	farAddr     = "127.0.0.77"
	specialAddr = "127.0.0.88"
)

// cell is a running daemon and the world on its far side.
type cell struct {
	t        *testing.T
	dir      string
	dns      *dnstest.Authority
	dnsAddr  string
	https    string
	connect  string
	daemon   *exec.Cmd
	log      *bytes.Buffer
	hostKey  ssh.PublicKey
	mu       sync.Mutex
	requests []string // that reached the TLS origin
	sessions int      // that reached the SSH server
}

// start runs the daemon with the given lists and waits for its readiness.
func start(t *testing.T, dnsList, httpsList, sshList string) *cell {
	t.Helper()
	if os.Getenv(role) != "tests" {
		t.Skip("needs a network namespace: allow unprivileged user namespaces or run as root")
	}
	c := &cell{t: t, dir: t.TempDir()}
	c.dns = dnstest.Start(t, func(q dnstest.Query) *dns.Msg {
		answer := new(dns.Msg).SetReply(q.Msg)
		addr := farAddr
		if q.Name == "special.test" {
			addr = specialAddr
		}
		rr, err := dns.NewRR(q.Msg.Question[0].Name + " 60 IN A " + addr)
		if err == nil && q.Type == dns.TypeA {
			answer.Answer = append(answer.Answer, rr)
		}
		return answer
	})
	c.serveTLS()
	c.serveSSH()
	certPEM, keyPEM, err := ca.Create("default")
	if err != nil {
		t.Fatal(err)
	}
	c.write("ca.pem", string(certPEM))
	c.write("ca.key", string(keyPEM))
	if err := os.Mkdir(filepath.Join(c.dir, "policy"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.write("policy/allowed-dns.txt", dnsList)
	c.write("policy/allowed-https.txt", httpsList)
	c.write("policy/allowed-ssh.txt", sshList)
	c.dnsAddr, c.https, c.connect = freePort(t), freePort(t), freePort(t)
	c.write("firewall.toml", fmt.Sprintf(`schema = 1
instance = "default"
[listen]
interface = "cell"
dns = %q
https = %q
connect = %q
control = "control.sock"
agent = "127.0.0.2"
[policy]
dir = "policy"
allow_private = [%q]
[ca]
cert = "ca.pem"
key = "ca.key"
[upstream]
resolvers = [%q]
roots = "roots.pem"
[audit]
path = "audit.jsonl"
`, c.dnsAddr, c.https, c.connect, farAddr, c.dns.Addr.String()))
	c.run()
	return c
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (c *cell) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// self prepares the test binary in the given part.
func (c *cell) self(part string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), role+"="+part)
	return cmd
}

// run starts the daemon and waits until it tells the service manager that it is ready.
func (c *cell) run() {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		c.t.Fatal(err)
	}
	defer manager.Close()
	c.log = &bytes.Buffer{}
	c.daemon = c.self("main", "serve", "--config", filepath.Join(c.dir, "firewall.toml"))
	c.daemon.Env = append(c.daemon.Env, "NOTIFY_SOCKET="+path)
	c.daemon.Stderr = c.log
	if err := c.daemon.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(c.stop)
	_ = manager.SetReadDeadline(time.Now().Add(20 * time.Second))
	state := make([]byte, 64)
	n, err := manager.Read(state)
	if err != nil || string(state[:n]) != "READY=1" {
		c.stop()
		c.t.Fatalf("the daemon did not become ready: %q, %v\n%s", state[:n], err, c.log)
	}
}

// stop ends the daemon, which must leave cleanly.
func (c *cell) stop() {
	if c.daemon == nil {
		return
	}
	_ = c.daemon.Process.Signal(syscall.SIGTERM)
	if err := c.daemon.Wait(); err != nil {
		c.t.Errorf("the daemon left with %v\n%s", err, c.log)
	}
	c.daemon = nil
}

// ctl runs a ctl verb and returns its output and exit code.
func (c *cell) ctl(args ...string) (string, int) {
	c.t.Helper()
	cmd := c.self("main", append([]string{"ctl", "--config", filepath.Join(c.dir, "firewall.toml")}, args...)...)
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState == nil {
		c.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// events returns the audit log so far.
func (c *cell) events() []audit.Event {
	c.t.Helper()
	out, code := c.ctl("log")
	if code != 0 {
		c.t.Fatalf("ctl log ended with %d", code)
	}
	var events []audit.Event
	for line := range strings.Lines(out) {
		var e audit.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			c.t.Fatalf("ctl log printed %q: %v", line, err)
		}
		events = append(events, e)
	}
	return events
}

// find returns the first event of a kind and host.
func (c *cell) find(kind, host string) audit.Event {
	c.t.Helper()
	events := c.events()
	for _, e := range events {
		if e.Kind == kind && e.Host == host {
			return e
		}
	}
	c.t.Fatalf("no %s event for %s in %+v", kind, host, events)
	return audit.Event{}
}

func (c *cell) serveTLS() {
	c.t.Helper()
	certPEM, keyPEM, err := ca.Create("far-side")
	if err != nil {
		c.t.Fatal(err)
	}
	authority, err := ca.Load(certPEM, keyPEM)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write("roots.pem", string(certPEM))
	l, err := net.Listen("tcp", farAddr+":443")
	if err != nil {
		c.t.Fatal(err)
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.mu.Lock()
			c.requests = append(c.requests, r.Proto+" "+r.Method+" "+r.Host+r.RequestURI)
			c.mu.Unlock()
			fmt.Fprintf(w, "hello from %s\n", r.Host)
		}),
		TLSConfig: &tls.Config{GetCertificate: authority.LeafFor, NextProtos: []string{"h2", "http/1.1"}},
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	done := make(chan struct{})
	go func() { _ = server.ServeTLS(l, "", ""); close(done) }()
	c.t.Cleanup(func() { server.Close(); <-done })
}

// seen returns the requests that reached the TLS origin.
func (c *cell) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.requests...)
}

// serveSSH is an SSH server that answers any command with a greeting and echoes
// standard input.
func (c *cell) serveSSH() {
	c.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	c.hostKey = signer.PublicKey()
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(signer)
	l, err := net.Listen("tcp", farAddr+":22")
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.sessions++
			c.mu.Unlock()
			go c.sshSession(conn, config)
		}
	}()
}

func (c *cell) sshSession(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	server, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	defer server.Close()
	go ssh.DiscardRequests(requests)
	for channel := range channels {
		stream, requests, err := channel.Accept()
		if err != nil {
			return
		}
		go func() {
			for request := range requests {
				_ = request.Reply(request.Type == "exec", nil)
				if request.Type != "exec" {
					continue
				}
				go func() {
					fmt.Fprintln(stream, "hello over SSH")
					_, _ = io.Copy(stream, stream)
					_, _ = stream.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{}))
					stream.Close()
				}()
			}
		}()
	}
}

// client returns an HTTPS client that trusts the cell's CA and is redirected to the
// daemon as nftables would.
func (c *cell) client() *http.Client {
	text, err := os.ReadFile(filepath.Join(c.dir, "ca.pem"))
	if err != nil {
		c.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		c.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", c.https)
		},
	}
	c.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// fetch returns the status, the Rootcell-Deny code and the body.
func (c *cell) fetch(url string) (int, string, string) {
	c.t.Helper()
	response, err := c.client().Get(url)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("Rootcell-Deny"), string(body)
}

// dialSSH opens an SSH connection to host through the tunnel. A refusal's body is
// in the error.
func (c *cell) dialSSH(host string) (*ssh.Client, error) {
	conn, err := net.Dial("tcp", c.connect)
	if err != nil {
		return nil, err
	}
	c.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "CONNECT %s:22 HTTP/1.1\r\nHost: %s:22\r\n\r\n", host, host)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		return nil, fmt.Errorf("%s: %s", response.Status, body)
	}
	client, channels, requests, err := ssh.NewClientConn(&buffered{conn, reader}, host,
		&ssh.ClientConfig{User: "git", HostKeyCallback: ssh.FixedHostKey(c.hostKey)})
	if err != nil {
		return nil, err
	}
	return ssh.NewClient(client, channels, requests), nil
}

// buffered is a connection of which some bytes were read already.
type buffered struct {
	net.Conn
	reader *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.reader.Read(p) }

// knownHost is the SSH server's key as in known_hosts.
func (c *cell) knownHost() string { return string(ssh.MarshalAuthorizedKey(c.hostKey)) }
