//go:build linux

package e2e

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

func TestDestinations(t *testing.T) {
	c := newCell(t, netlab.Options{})
	t.Run("C1 the address that the client picked is never dialled", func(t *testing.T) {
		c.world.Forget()
		decoy := "11.22.33.77"
		c.AddInternetAddr(t, decoy+"/24")
		r := c.curl(t, "--resolve", "ok.test.example:443:"+decoy, "https://ok.test.example/picked")
		if r.stdout != "ok.test.example GET /picked\n" {
			t.Errorf("got %+v", r)
		}
		e := c.daemon.AwaitAudit(t, map[string]any{"path": "/picked", "verdict": "allow"})
		if !strings.HasPrefix(e["upstream"].(string), netlab.InternetAddr) {
			t.Errorf("upstream %v, want the name's own address", e["upstream"])
		}
	})
	t.Run("C2 C5 allowed name with special addresses only", func(t *testing.T) {
		c.world.Forget()
		r := c.curl(t, "-i", "https://private.test.example/")
		if strings.Contains(r.stdout, " 200") || !strings.Contains(r.stdout, "special-address") {
			t.Errorf("got %+v", r)
		}
		if seen := c.world.Sightings("tls"); len(seen) > 0 {
			t.Errorf("the far side saw %v", seen)
		}
		if r := c.agent(t, "dig", "+short", "@"+netlab.FirewallAddr, "private.test.example"); strings.TrimSpace(r.stdout) != "" {
			t.Errorf("special addresses were answered: %q", r.stdout)
		}
		response, _, _ := c.connect(t, "private.test.example:22")
		if response.StatusCode != http.StatusForbidden {
			t.Errorf("CONNECT: %s", response.Status)
		}
	})
	t.Run("A18 an expired upstream certificate", func(t *testing.T) {
		c.world.Forget()
		c.world.Host(t, "badcert.test.example", nil)
		c.world.Expire(t, "badcert.test.example")
		r := c.curl(t, "-i", "-d", "secret", "https://badcert.test.example/")
		if strings.Contains(r.stdout, " 200") || !strings.Contains(r.stdout, "upstream-cert") {
			t.Errorf("got %+v", r)
		}
		if seen := c.world.Sightings("https"); len(seen) > 0 {
			t.Errorf("a request was sent before the certificate was verified: %v", seen)
		}
	})
	t.Run("C7 the transparent port is not reachable by itself", func(t *testing.T) {
		c.world.Forget()
		if conn, err := c.Agent.Dial(t.Context(), "tcp4", netlab.FirewallAddr+":8081"); err == nil {
			_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
			if tls.Client(conn, &tls.Config{ServerName: "ok.test.example", InsecureSkipVerify: true}).Handshake() == nil {
				t.Error("a direct connection to the transparent port was served")
			}
		}
		c.silent(t)
	})
	t.Run("C8 another upstream port", func(t *testing.T) {
		c.world.Forget()
		r := c.curl(t, "--http1.1", "-i", "-H", "Host: ok.test.example:8443", "https://ok.test.example/")
		if strings.Contains(r.stdout, " 200") {
			t.Errorf("got %+v", r)
		}
		c.silent(t)
	})
	t.Run("C6 address literals are never names", func(t *testing.T) {
		c.world.Forget()
		for _, target := range []string{"127.0.0.1:22", "2130706433:22", "0x7f.1:22", "[::1]:22", netlab.InternetAddr + ":22"} {
			response, _, _ := c.connect(t, target)
			if response.StatusCode == http.StatusOK {
				t.Errorf("CONNECT %s was allowed", target)
			}
		}
		c.silent(t)
	})
}
