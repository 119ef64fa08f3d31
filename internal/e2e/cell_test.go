//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// cell is one laboratory with the firewall running in it.
type cell struct {
	*netlab.Lab
	world  *netlab.World
	daemon *netlab.Daemon
	seen   int // audit lines before the attack under way
}

const (
	dnsList   = "ok.test.example\nscoped.test.example\nsshok.test.example\nprivate.test.example\n"
	httpsList = "ok.test.example\nok2.test.example\nscoped.test.example GET /public/\nprivate.test.example\nbadcert.test.example\n"
	sshList   = "sshok.test.example\nprivate.test.example\n"
)

// newCell starts a world with a few names and the firewall with the lists above, or those of the options.
func newCell(t *testing.T, o netlab.Options) *cell {
	t.Helper()
	lab := netlab.New(t)
	world := netlab.NewWorld(t, lab.Internet, netlab.InternetAddr)
	for _, name := range []string{"ok", "ok2", "no", "scoped", "sshok", "sshno"} {
		world.Host(t, name+".test.example", nil)
	}
	world.Host(t, "private.test.example", nil, "169.254.169.254", "127.0.0.1", "10.1.2.3", netlab.FirewallAddr, netlab.AgentAddr, netlab.UplinkAddr)
	if o.DNS == "" && o.HTTPS == "" && o.SSH == "" {
		o.DNS, o.HTTPS, o.SSH = dnsList, httpsList, sshList
	}
	return &cell{Lab: lab, world: world, daemon: netlab.StartDaemon(t, lab, world, o)}
}

// result is what a client in the agent printed.
type result struct {
	code           int
	stdout, stderr string
}

// agent runs a program in the agent namespace, at most 20 seconds.
func (c *cell) agent(t *testing.T, name string, args ...string) result {
	t.Helper()
	return c.agentInput(t, "", name, args...)
}

func (c *cell) agentInput(t *testing.T, stdin, name string, args ...string) result {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := c.Agent.Command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("running %s: %v", name, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// curl runs curl with the instance CA trusted. Names without a DNS rule are resolved by the client itself, as an attacker
// would, so that the HTTPS rules are what decides.
func (c *cell) curl(t *testing.T, args ...string) result {
	t.Helper()
	base := []string{"-sS", "-m", "10", "--cacert", c.daemon.CAFile}
	for _, name := range []string{"no", "ok2", "private", "badcert"} {
		base = append(base, "--resolve", name+".test.example:443:"+netlab.InternetAddr)
	}
	return c.agent(t, "curl", append(base, args...)...)
}

// mark begins an attack: what was seen before it counts no more.
func (c *cell) mark(t *testing.T) {
	t.Helper()
	c.world.Forget()
	c.seen = len(c.daemon.AuditLog(t))
}

// denied waits for a denial with one of the reasons in the audit log since mark.
func (c *cell) denied(t *testing.T, reasons ...string) {
	t.Helper()
	netlab.Await(t, 5*time.Second, fmt.Sprintf("a denial with a reason of %q", reasons), func() bool {
		for _, e := range c.daemon.AuditLog(t)[c.seen:] {
			for _, reason := range reasons {
				if e["verdict"] == "deny" && e["reason"] == reason {
					return true
				}
			}
		}
		return false
	})
}

// noRequest asserts that no request reached the far side since mark.
func (c *cell) noRequest(t *testing.T) {
	t.Helper()
	if seen := c.world.Sightings("https"); len(seen) > 0 {
		t.Errorf("the far side saw %v", seen)
	}
}

// python runs a script of testdata in the agent.
func (c *cell) python(t *testing.T, script string, args ...string) result {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", script))
	if err != nil {
		t.Fatal(err)
	}
	return c.agent(t, "/usr/bin/python3", append([]string{path}, args...)...)
}

// code returns the status that curl gets for a URL, "000" when it gets none.
func (c *cell) code(t *testing.T, args ...string) string {
	t.Helper()
	return c.curl(t, append([]string{"-o", "/dev/null", "-w", "%{http_code}"}, args...)...).stdout
}

// silent asserts that nothing reached the far side since the last Forget.
func (c *cell) silent(t *testing.T) {
	t.Helper()
	if seen := c.world.Sightings(); len(seen) > 0 {
		t.Errorf("the far side saw %v", seen)
	}
}

// unasked asserts that no request reached the far side since the last Forget; that an allowed name was looked up and
// connected to does not matter.
func (c *cell) unasked(t *testing.T) {
	t.Helper()
	for _, s := range c.world.Sightings() {
		if s.Kind == "https" || s.Kind == "tcp" || s.Kind == "udp" || s.Name != "" && !strings.HasSuffix(s.Name, "ok.test.example") && !strings.HasSuffix(s.Name, "scoped.test.example") {
			t.Errorf("the far side saw %v", s)
		}
	}
}

// raw opens a TCP connection from the agent to any address; port 443 ends in the firewall by redirection.
func (c *cell) raw(t *testing.T, addr string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := c.Agent.Dial(ctx, "tcp4", addr)
	if err != nil {
		t.Fatalf("dialing %s from the agent: %v", addr, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

// tls opens a TLS connection from the agent with the given SNI and protocols, trusting the instance CA.
func (c *cell) tls(t *testing.T, sni string, protos ...string) *tls.Conn {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.daemon.CA) {
		t.Fatal("the instance CA does not parse")
	}
	conn := tls.Client(c.raw(t, netlab.InternetAddr+":443"), &tls.Config{ServerName: sni, RootCAs: pool, NextProtos: protos})
	if err := conn.Handshake(); err != nil {
		t.Fatalf("TLS handshake for %s: %v", sni, err)
	}
	return conn
}

// exchange sends bytes as they are and reads what comes until the peer closes or falls silent: for a second, or half
// of one once it has answered.
func exchange(t *testing.T, conn net.Conn, request string) string {
	t.Helper()
	if _, err := io.WriteString(conn, request); err != nil {
		return ""
	}
	var answer strings.Builder
	buffer := make([]byte, 64<<10)
	for patience := time.Second; ; patience = time.Second / 2 {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		n, err := conn.Read(buffer)
		answer.Write(buffer[:n])
		if err != nil {
			return answer.String()
		}
	}
}

// client is a Go HTTP/1.1 client in the agent namespace that trusts the instance CA.
func (c *cell) client(t *testing.T) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.daemon.CA)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return c.Agent.Dial(ctx, "tcp4", netlab.InternetAddr+":443")
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// connect sends a CONNECT request and returns the response's head and the connection.
func (c *cell) connect(t *testing.T, target string) (*http.Response, *bufio.Reader, net.Conn) {
	t.Helper()
	conn := c.raw(t, netlab.FirewallAddr+":8080")
	_, _ = fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatalf("CONNECT %s: %v", target, err)
	}
	return response, reader, conn
}

// pool is what the agent trusts.
func (c *cell) pool(t *testing.T) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.daemon.CA) {
		t.Fatal("the instance CA does not parse")
	}
	return pool
}

// openssl runs s_client for ok.test.example in the agent and gives it the inputs one after the other, as a person would.
func (c *cell) openssl(t *testing.T, args []string, inputs ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cmd := c.Agent.Command(ctx, "openssl", append([]string{"s_client", "-connect", netlab.InternetAddr + ":443", "-servername", "ok.test.example"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, input := range inputs {
		<-time.After(30 * time.Millisecond)
		if _, err := io.WriteString(stdin, input); err != nil {
			break
		}
	}
	<-time.After(300 * time.Millisecond)
	_ = stdin.Close()
	_ = cmd.Wait()
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}
