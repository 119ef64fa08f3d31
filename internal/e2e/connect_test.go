//go:build linux

package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

func TestConnect(t *testing.T) {
	t.Parallel()
	c := newCell(t, netlab.Options{})
	request := func(target string) string {
		return "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n"
	}
	const host = "Host: sshok.test.example:22\r\n"
	for name, request := range map[string]string{
		"F1 port 443":               request("sshok.test.example:443"),
		"F1 port 2222":              request("sshok.test.example:2222"),
		"F1 a host for HTTPS only":  request("ok.test.example:22"),
		"F2 metadata":               request("169.254.169.254:22"),
		"F2 loopback":               request("127.0.0.1:22"),
		"F2 IPv6 loopback":          request("[::1]:22"),
		"F2 zero":                   request("0:22"),
		"F2 the firewall":           request(netlab.FirewallAddr + ":22"),
		"F2 the far side's address": request(netlab.InternetAddr + ":22"),
		"F2 an internal name":       request("private.test.example:22"),
		"F3 two authorities":        "CONNECT sshok.test.example:22@no.test.example:22 HTTP/1.1\r\n" + host + "\r\n",
		"F3 userinfo":               "CONNECT user@sshok.test.example:22 HTTP/1.1\r\n" + host + "\r\n",
		"F3 brackets":               "CONNECT [sshok.test.example]:22 HTTP/1.1\r\n" + host + "\r\n",
		"F3 port overflow":          request("sshok.test.example:65558"),
		"F3 leading zero":           request("sshok.test.example:022"),
		"F3 missing port":           request("sshok.test.example"),
		"F3 empty port":             request("sshok.test.example:"),
		"F3 signed port":            request("sshok.test.example:+22"),
		"F3 two ports":              request("sshok.test.example:22:22"),
		"F3 percent":                request("sshok%2etest.example:22"),
		"F3 a tab":                  "CONNECT\tsshok.test.example:22 HTTP/1.1\r\n" + host + "\r\n",
		"F3 two spaces":             "CONNECT  sshok.test.example:22 HTTP/1.1\r\n" + host + "\r\n",
		"F3 a URL":                  "CONNECT https://sshok.test.example:22/ HTTP/1.1\r\n" + host + "\r\n",
		"F3 a path":                 "CONNECT sshok.test.example:22/x HTTP/1.1\r\n" + host + "\r\n",
		"F3 NUL":                    "CONNECT no.test.example\x00.sshok.test.example:22 HTTP/1.1\r\n" + host + "\r\n",
		"F3 Host differs":           "CONNECT sshok.test.example:22 HTTP/1.1\r\nHost: no.test.example:22\r\n\r\n",
		"F3 two Host lines":         "CONNECT sshok.test.example:22 HTTP/1.1\r\n" + host + "Host: no.test.example:22\r\n\r\n",
		"F3 HTTP/2 preface":         "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"F3 HTTP/2.0":               "CONNECT sshok.test.example:22 HTTP/2.0\r\n" + host + "\r\n",
		"F4 content length":         "CONNECT sshok.test.example:22 HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello",
		"F4 chunked":                "CONNECT sshok.test.example:22 HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"F4 plain GET":              "GET http://ok.test.example/ HTTP/1.1\r\nHost: ok.test.example\r\n\r\n",
		"F4 GET of a path":          "GET / HTTP/1.1\r\nHost: ok.test.example\r\n\r\n",
		"F4 SOCKS":                  "\x05\x01\x00",
		"B6 bare line feeds":        "CONNECT sshok.test.example:22 HTTP/1.1\nHost: sshok.test.example:22\n\n",
		"F11 a head without end":    "CONNECT sshok.test.example:22 HTTP/1.1\r\nX: " + strings.Repeat("a", 1<<20),
		"a host on no list":         request("no.test.example:22"),
	} {
		t.Run(name, func(t *testing.T) {
			c.mark(t)
			if answer := exchange(t, c.raw(t, netlab.FirewallAddr+":8080"), request); strings.Contains(answer, " 200 ") {
				t.Errorf("answered %q", answer)
			}
			if name == "F2 an internal name" {
				c.denied(t, "special-address")
				return
			}
			c.silent(t)
			c.denied(t, "malformed", "port", "no-rule", "limit", "cleartext")
		})
	}
	t.Run("F4 bytes before the answer wait for it", func(t *testing.T) {
		c.mark(t)
		exchange(t, c.raw(t, netlab.FirewallAddr+":8080"), request("sshok.test.example:22")+"GET /smuggled HTTP/1.1\r\n\r\n")
		c.denied(t, "not-ssh")
		if seen := c.world.Sightings("ssh-client", "GET"); len(seen) > 0 {
			t.Errorf("the far side saw %v", seen)
		}
		answer := exchange(t, c.raw(t, netlab.FirewallAddr+":8080"), request("sshok.test.example:22")+"SSH-2.0-early\r\n")
		if !strings.Contains(answer, " 200 ") || !strings.Contains(answer, "SSH-2.0-netlab") {
			t.Errorf("an early banner: %q", answer)
		}
	})
	for what, first := range map[string]string{
		"HTTP": "GET / HTTP/1.1\r\nHost: evil\r\n\r\n", "TLS": "\x16\x03\x01\x00\x05hello", "SOCKS": "\x05\x01\x00", "a shell": "\n\nid\n",
		"an old version": "SSH-1.5-x\r\n", "text and then SSH": "data\r\nSSH-2.0-x\r\n", "F11 a banner of a megabyte": "SSH-2.0-" + strings.Repeat("x", 1<<20),
	} {
		if !strings.HasPrefix(what, "F11") {
			what = "F5 inside the tunnel: " + what
		}
		t.Run(what, func(t *testing.T) {
			c.mark(t)
			response, _, conn := c.connect(t, "sshok.test.example:22")
			if response.StatusCode != http.StatusOK {
				t.Fatalf("status %s", response.Status)
			}
			_, _ = io.WriteString(conn, first)
			_, _ = io.Copy(io.Discard, conn)
			for _, s := range c.world.Sightings("ssh-client") {
				if s.Text != "" {
					t.Errorf("bytes that are not SSH went upstream: %v", s)
				}
			}
			c.denied(t, "not-ssh")
		})
	}
	t.Run("F6 F8 what is inside an allowed tunnel is not looked at, and said so", func(t *testing.T) {
		_, reader, conn := c.connect(t, "sshok.test.example:22")
		_, _ = io.WriteString(conn, "SSH-2.0-opaque\r\n")
		if line, _ := reader.ReadString('\n'); line != "SSH-2.0-netlab\r\n" {
			t.Errorf("banner %q", line)
		}
		_ = conn.Close()
		e := c.daemon.AwaitAudit(t, map[string]any{"kind": "ssh", "verdict": "allow", "opaque": "true"})
		if e["rule"] != "allowed-ssh.txt:1" || e["host"] != "sshok.test.example" {
			t.Errorf("audit event %v", e)
		}
	})
	t.Run("F7 the firewall's own SSH server", func(t *testing.T) {
		for _, addr := range []string{netlab.FirewallAddr + ":22", netlab.UplinkAddr + ":22"} {
			ln, err := c.Firewall.Listen("tcp4", addr)
			if err != nil {
				t.Fatal(err)
			}
			if conn, err := c.Agent.Dial(t.Context(), "tcp4", addr); err == nil {
				_ = conn.Close()
				t.Errorf("connected to %s", addr)
			}
			_ = ln.Close()
		}
	})
	t.Run("F9 Git's other transports", func(t *testing.T) {
		c.mark(t)
		for _, url := range []string{"git://ok.test.example/x", "http://ok.test.example/x"} {
			ip := strings.Replace(url, "ok.test.example", netlab.InternetAddr, 1)
			if r := c.agent(t, "timeout", "8", "git", "ls-remote", ip); r.code == 0 {
				t.Errorf("%s: %+v", url, r)
			}
		}
		c.silent(t)
		// A large-file host, a submodule or a redirect is another name, and judged as one.
		if got := c.code(t, "https://no.test.example/info/lfs/objects/batch"); got != "403" {
			t.Errorf("status %s", got)
		}
	})
}

// TestPushRules pins how a rule lets an agent read a repository and not write to it.
func TestPushRules(t *testing.T) {
	t.Parallel()
	c := newCell(t, netlab.Options{DNS: "ok.test.example\n", SSH: "\n", HTTPS: "ok.test.example (GET /org/repo[.]git/info/refs[?]service=git-upload-pack|POST /org/repo[.]git/git-upload-pack)$\n"})
	for path, want := range map[string]string{
		"/org/repo.git/info/refs?service=git-upload-pack":  "200",
		"/org/repo.git/info/refs?service=git-receive-pack": "403",
		"/evil/repo.git/info/refs?service=git-upload-pack": "403",
	} {
		if got := c.code(t, "https://ok.test.example"+path); got != want {
			t.Errorf("F10 %s: %s, want %s", path, got, want)
		}
	}
	t.Run("F10 a push through an allowed host", func(t *testing.T) {
		c.mark(t)
		if got := c.code(t, "-d", "0000", "https://ok.test.example/org/repo.git/git-receive-pack"); got != "403" {
			t.Errorf("status %s", got)
		}
		c.noRequest(t)
		c.denied(t, "path-rule")
	})
}
