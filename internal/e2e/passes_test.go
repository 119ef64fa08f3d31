//go:build linux

package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

func TestAllowedTrafficPasses(t *testing.T) {
	c := newCell(t, netlab.Options{})
	t.Run("curl over HTTP/1.1", func(t *testing.T) {
		r := c.curl(t, "--http1.1", "https://ok.test.example/a/b?c=d")
		if r.code != 0 || r.stdout != "ok.test.example GET /a/b?c=d\n" {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("curl over HTTP/2", func(t *testing.T) {
		r := c.curl(t, "--http2", "-w", "%{http_version}", "https://ok.test.example/x")
		if r.code != 0 || r.stdout != "ok.test.example GET /x\n2" {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("an upload", func(t *testing.T) {
		r := c.agentInput(t, strings.Repeat("x", 1<<20), "curl", "-sS", "--cacert", c.daemon.CAFile, "--data-binary", "@-", "https://ok.test.example/up")
		if r.code != 0 || len(r.stdout) < 1<<20 {
			t.Errorf("exit %d, %d bytes came back: %s", r.code, len(r.stdout), r.stderr)
		}
	})
	t.Run("dig over udp and tcp", func(t *testing.T) {
		for _, flag := range []string{"+notcp", "+tcp"} {
			if r := c.agent(t, "dig", flag, "+short", "@"+netlab.FirewallAddr, "ok.test.example"); r.stdout != netlab.InternetAddr+"\n" {
				t.Errorf("dig %s: %+v", flag, r)
			}
		}
	})
	t.Run("CONNECT for SSH", func(t *testing.T) {
		response, reader, conn := c.connect(t, "sshok.test.example:22")
		if response.StatusCode != http.StatusOK {
			t.Fatalf("status %s", response.Status)
		}
		_, _ = io.WriteString(conn, "SSH-2.0-client\r\n")
		if line, err := reader.ReadString('\n'); err != nil || line != "SSH-2.0-netlab\r\n" {
			t.Errorf("banner %q, %v", line, err)
		}
		netlab.Await(t, 5*time.Second, "the client's banner at the far side", func() bool { return len(c.world.Sightings("ssh-client", "SSH-2.0-client")) == 1 })
	})
	t.Run("a path rule", func(t *testing.T) {
		if r := c.curl(t, "https://scoped.test.example/public/x"); r.stdout != "scoped.test.example GET /public/x\n" {
			t.Errorf("got %+v", r)
		}
	})
	e := c.daemon.AwaitAudit(t, map[string]any{"kind": "https", "verdict": "allow", "host": "ok.test.example", "path": "/a/b?c=d"})
	if e["upstream"] == "" || e["rule"] != "allowed-https.txt:1" || e["method"] != "GET" {
		t.Errorf("audit event %v", e)
	}
}

func TestDenialsExplainThemselves(t *testing.T) {
	c := newCell(t, netlab.Options{})
	t.Run("HTTPS", func(t *testing.T) {
		r := c.curl(t, "-i", "https://no.test.example/x")
		for _, want := range []string{"403", "rootcell-deny: no-rule", "no.test.example", "allowed-https.txt", "rootcell allow no.test.example"} {
			if !strings.Contains(strings.ToLower(r.stdout), strings.ToLower(want)) {
				t.Errorf("the denial lacks %q:\n%+v", want, r)
			}
		}
	})
	t.Run("DNS", func(t *testing.T) {
		r := c.agent(t, "dig", "@"+netlab.FirewallAddr, "no.test.example")
		for _, want := range []string{"REFUSED", "EDE: 15 (Blocked)", "allowed-dns.txt"} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("the answer lacks %q:\n%s", want, r.stdout)
			}
		}
	})
	t.Run("SSH", func(t *testing.T) {
		response, reader, _ := c.connect(t, "sshno.test.example:22")
		body, _ := io.ReadAll(reader)
		if response.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "allowed-ssh.txt") {
			t.Errorf("status %s: %s", response.Status, body)
		}
	})
	c.silent(t)
}
