//go:build linux

package e2e

import (
	"crypto/tls"
	"io"
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

func TestConnect(t *testing.T) {
	c := newCell(t, netlab.Options{})
	send := func(t *testing.T, request string) string {
		return exchange(t, c.raw(t, netlab.FirewallAddr+":8080"), request)
	}
	for name, request := range map[string]string{
		"F1 another port":              "CONNECT sshok.test.example:443 HTTP/1.1\r\nHost: sshok.test.example:443\r\n\r\n",
		"F3 two authorities":           "CONNECT sshok.test.example:22@no.test.example:22 HTTP/1.1\r\nHost: sshok.test.example:22\r\n\r\n",
		"F3 brackets":                  "CONNECT [sshok.test.example]:22 HTTP/1.1\r\nHost: sshok.test.example:22\r\n\r\n",
		"F3 port overflow":             "CONNECT sshok.test.example:65558 HTTP/1.1\r\nHost: sshok.test.example:65558\r\n\r\n",
		"F3 leading zero":              "CONNECT sshok.test.example:022 HTTP/1.1\r\nHost: sshok.test.example:022\r\n\r\n",
		"F3 missing port":              "CONNECT sshok.test.example HTTP/1.1\r\nHost: sshok.test.example\r\n\r\n",
		"F3 Host differs":              "CONNECT sshok.test.example:22 HTTP/1.1\r\nHost: no.test.example:22\r\n\r\n",
		"F4 content length":            "CONNECT sshok.test.example:22 HTTP/1.1\r\nHost: sshok.test.example:22\r\nContent-Length: 5\r\n\r\nhello",
		"F4 chunked":                   "CONNECT sshok.test.example:22 HTTP/1.1\r\nHost: sshok.test.example:22\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"F4 plain GET":                 "GET http://ok.test.example/ HTTP/1.1\r\nHost: ok.test.example\r\n\r\n",
		"F3 HTTP/2 preface":            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"B6 bare line feeds":           "CONNECT sshok.test.example:22 HTTP/1.1\nHost: sshok.test.example:22\n\n",
		"a host that is not on a list": "CONNECT no.test.example:22 HTTP/1.1\r\nHost: no.test.example:22\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c.world.Forget()
			if answer := send(t, request); strings.Contains(answer, " 200 ") {
				t.Errorf("answered %q", answer)
			}
			c.silent(t)
		})
	}
	t.Run("F5 not SSH inside the tunnel", func(t *testing.T) {
		c.world.Forget()
		response, _, conn := c.connect(t, "sshok.test.example:22")
		if response.StatusCode != http.StatusOK {
			t.Fatalf("status %s", response.Status)
		}
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: evil\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
		if seen := c.world.Sightings("ssh-client", "GET"); len(seen) > 0 {
			t.Errorf("bytes that are not SSH went upstream: %v", seen)
		}
	})
}

func TestSmuggling(t *testing.T) {
	c := newCell(t, netlab.Options{})
	const host = "Host: ok.test.example\r\n"
	for name, request := range map[string]string{
		"B1 two Host lines":         "GET /a HTTP/1.1\r\n" + host + "Host: no.test.example\r\n\r\n",
		"B1 comma Host":             "GET /a HTTP/1.1\r\nHost: ok.test.example, no.test.example\r\n\r\n",
		"B1 folded line":            "GET /a HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n",
		"B1 space before colon":     "GET /a HTTP/1.1\r\nHost : ok.test.example\r\n\r\n",
		"B3 userinfo":               "GET /a HTTP/1.1\r\nHost: ok.test.example@no.test.example\r\n\r\n",
		"B4 length and chunked":     "POST /a HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n" + host + "\r\n",
		"B4 two lengths":            "POST /a HTTP/1.1\r\n" + host + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
		"B4 signed length":          "POST /a HTTP/1.1\r\n" + host + "Content-Length: +4\r\n\r\nabcd",
		"B5 odd transfer encoding":  "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"B5 chunked then identity":  "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
		"B6 bare line feed":         "GET /a HTTP/1.1\n" + host + "\r\n",
		"B6 NUL in a field":         "GET /a HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n",
		"B12 HTTP/2 preface":        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"B14 CONNECT inside":        "CONNECT no.test.example:443 HTTP/1.1\r\nHost: no.test.example:443\r\n\r\n",
		"B17 HTTP/0.9":              "GET /a\r\n",
		"B17 HTTP/1.0 without Host": "GET /a HTTP/1.0\r\n\r\n",
		"B17 HTTP/3.0":              "GET /a HTTP/3.0\r\n" + host + "\r\n",
		"A15 not HTTP":              "SSH-2.0-x\r\n",
		"B21 fragment":              "GET /a#b HTTP/1.1\r\n" + host + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c.world.Forget()
			conn := c.tls(t, "ok.test.example")
			if answer := exchange(t, conn, request); strings.Contains(answer, " 200 ") {
				t.Errorf("answered %q", answer)
			}
			if seen := c.world.Sightings("https"); len(seen) > 0 {
				t.Errorf("the far side saw %v", seen)
			}
		})
	}
	t.Run("B8 B9 each request on a connection is judged", func(t *testing.T) {
		c.world.Forget()
		conn := c.tls(t, "scoped.test.example")
		const scoped = "Host: scoped.test.example\r\n\r\n"
		answer := exchange(t, conn, "GET /public/1 HTTP/1.1\r\n"+scoped+"DELETE /secret HTTP/1.1\r\n"+scoped)
		if !strings.Contains(answer, " 200 ") || !strings.Contains(answer, " 403 ") {
			t.Errorf("answered %q", answer)
		}
		if seen := c.world.Sightings("https"); len(seen) != 1 || !strings.Contains(seen[0].Text, "/public/1") {
			t.Errorf("the far side saw %v", seen)
		}
	})
	t.Run("B11 upgrade to h2c", func(t *testing.T) {
		c.world.Forget()
		answer := exchange(t, c.tls(t, "ok.test.example"), "GET /a HTTP/1.1\r\n"+host+"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n")
		if strings.Contains(answer, " 101 ") {
			t.Errorf("answered %q", answer)
		}
	})
}
