//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

func TestPolicyLifecycle(t *testing.T) {
	t.Parallel()
	c := newCell(t, netlab.Options{})
	t.Run("H6 a kept-alive connection loses its grant within a second", func(t *testing.T) {
		client := c.client(t)
		get := func() (int, error) {
			r, err := client.Get("https://ok.test.example/alive")
			if err != nil {
				return 0, err
			}
			_, _ = io.Copy(io.Discard, r.Body)
			return r.StatusCode, r.Body.Close()
		}
		if code, err := get(); code != http.StatusOK {
			t.Fatalf("%d, %v", code, err)
		}
		c.daemon.WritePolicy(t, dnsList, "ok2.test.example\n", sshList)
		c.daemon.Ctl(t, nil, "reload")
		c.world.Forget()
		netlab.Await(t, time.Second, "the grant to end", func() bool { code, _ := get(); return code != http.StatusOK })
		c.silent(t)
		c.daemon.WritePolicy(t, dnsList, httpsList, sshList)
		c.daemon.Ctl(t, nil, "reload")
	})
	t.Run("H6 an SSH tunnel loses its grant within a second", func(t *testing.T) {
		_, reader, conn := c.connect(t, "sshok.test.example:22")
		_, _ = io.WriteString(conn, "SSH-2.0-x\r\n")
		_, _ = reader.ReadString('\n')
		c.daemon.WritePolicy(t, dnsList, httpsList, "\n")
		c.daemon.Ctl(t, nil, "reload")
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := reader.ReadByte(); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("the tunnel is still open: %v", err)
		}
		c.daemon.WritePolicy(t, dnsList, httpsList, sshList)
		c.daemon.Ctl(t, nil, "reload")
	})
	t.Run("H1 empty, blank and commented lists deny", func(t *testing.T) {
		for _, text := range []string{"", " \n\t\n", "# *\n# ok.test.example\n", "\n\n"} {
			c.daemon.WritePolicy(t, text, text, text)
			c.daemon.Ctl(t, nil, "reload")
			c.mark(t)
			if got := c.code(t, "--resolve", "ok.test.example:443:"+netlab.InternetAddr, "https://ok.test.example/"); got == "200" {
				t.Errorf("%q allows HTTPS", text)
			}
			if r := c.agent(t, "dig", "+tries=1", "@"+netlab.FirewallAddr, "ok.test.example"); !strings.Contains(r.stdout, "REFUSED") {
				t.Errorf("%q allows DNS:\n%s", text, r.stdout)
			}
			if response, _, _ := c.connect(t, "sshok.test.example:22"); response.StatusCode == http.StatusOK {
				t.Errorf("%q allows SSH", text)
			}
			c.silent(t)
		}
		c.daemon.WritePolicy(t, dnsList, httpsList, sshList)
		c.daemon.Ctl(t, nil, "reload")
	})
	list := c.Dir + "/policy/allowed-https.txt"
	for what, spoil := range map[string]func() error{
		"missing":     func() error { return nil },
		"a FIFO":      func() error { return syscall.Mkfifo(list, 0o644) },
		"a directory": func() error { return os.Mkdir(list, 0o755) },
		"a link":      func() error { return os.Symlink("/etc/passwd", list) },
		"unreadable":  func() error { return os.WriteFile(list, []byte(httpsList), 0) },
		"huge":        func() error { return os.WriteFile(list, bytes.Repeat([]byte("ok.test.example\n"), 8<<20), 0o644) },
	} {
		t.Run("H2 a list that is "+what, func(t *testing.T) {
			if err := os.Remove(list); err != nil {
				t.Fatal(err)
			}
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = os.RemoveAll(list)
				c.daemon.WritePolicy(t, dnsList, httpsList, sshList)
				c.daemon.Ctl(t, nil, "reload")
			}()
			c.daemon.CtlRefused(t, "reload")
			if got := c.code(t, "https://ok.test.example/"); got != "200" {
				t.Errorf("the running list did not stay: %s", got)
			}
			c.daemon.Kill()
			c.daemon.Start(t)
			c.mark(t)
			if got := c.code(t, "https://ok.test.example/"); got == "200" {
				t.Error("after a start it allows")
			}
			c.noRequest(t)
			var status struct {
				Policy map[string]struct{ Error string }
			}
			if c.daemon.Ctl(t, &status, "status"); status.Policy["https"].Error == "" || status.Policy["dns"].Error != "" {
				t.Errorf("status %+v", status)
			}
		})
	}
	for what, text := range map[string]string{
		"a regex that is none": "no.test.example\nok.test.example GET /(unclosed\n",
		"UTF-16":               "\xff\xfeo\x00k\x00.\x00t\x00", "a bare suffix": "no.test.example\n*ok.test.example.\x00\n", "a URL": "no.test.example\nhttps://ok.test.example/\n",
		"a port": "no.test.example\nok.test.example:8443\n", "an address": "no.test.example\n10.0.0.1\n", "a lone dot": "no.test.example\n*.\n",
	} {
		t.Run("H3 H8 one bad line: "+what, func(t *testing.T) {
			c.daemon.WritePolicy(t, dnsList, text, sshList)
			c.daemon.CtlRefused(t, "reload")
			if got := c.code(t, "https://no.test.example/"); got != "403" {
				t.Errorf("the half of a bad file took effect: %s", got)
			}
			if got := c.code(t, "https://ok.test.example/"); got != "200" {
				t.Errorf("the running policy did not stay: %s", got)
			}
		})
	}
	t.Run("H8 upper case, a trailing dot and IDN match what they mean", func(t *testing.T) {
		c.world.Host(t, "xn--bcher-kva.test.example", nil)
		c.daemon.WritePolicy(t, dnsList, "OK.Test.EXAMPLE.\nb\u00fccher.test.example\r\n", sshList)
		c.daemon.Ctl(t, nil, "reload")
		for _, name := range []string{"ok.test.example", "xn--bcher-kva.test.example"} {
			if got := c.code(t, "--resolve", name+":443:"+netlab.InternetAddr, "https://"+name+"/"); got != "200" {
				t.Errorf("%s: %s", name, got)
			}
		}
		c.daemon.WritePolicy(t, dnsList, httpsList, sshList)
		c.daemon.Ctl(t, nil, "reload")
	})
	t.Run("H4 there is no mode but enforcing", func(t *testing.T) {
		// A word behind a host is a regex, which no request matches; what is not a line of the language is refused.
		for line, refused := range map[string]bool{"no.test.example audit\n": false, "no.test.example mode=warn\n": true, "audit: no.test.example\n": true, "ok.test.example get /\n": false} {
			c.daemon.WritePolicy(t, dnsList, line, sshList)
			if refused {
				c.daemon.CtlRefused(t, "reload")
				continue
			}
			var result struct{ Problems []struct{ Warning bool } }
			if c.daemon.Ctl(t, &result, "reload"); len(result.Problems) != 1 || !result.Problems[0].Warning {
				t.Errorf("%q: no warning: %+v", line, result)
			}
			c.mark(t)
			for _, host := range []string{"no.test.example", "ok.test.example"} {
				if got := c.code(t, "https://"+host+"/"); got != "403" {
					t.Errorf("%q allows %s: %s", line, host, got)
				}
			}
			c.noRequest(t)
		}
		c.daemon.WritePolicy(t, dnsList, httpsList, sshList)
		c.daemon.Ctl(t, nil, "reload")
	})
	t.Run("H7 one generation decides everything", func(t *testing.T) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range 30 {
				https := httpsList
				if i%2 == 0 {
					https = "ok2.test.example\n"
				}
				c.daemon.WritePolicy(t, dnsList, https, sshList)
				c.daemon.Ctl(t, nil, "reload")
			}
		}()
		c.mark(t)
		for i := 0; ; i++ {
			c.code(t, fmt.Sprintf("https://no.test.example/hammer%d", i))
			c.code(t, fmt.Sprintf("https://ok.test.example/hammer%d", i))
			select {
			case <-done:
			default:
				continue
			}
			break
		}
		if seen := c.world.Sightings("https", "no.test"); len(seen) > 0 {
			t.Errorf("a reload opened: %v", seen)
		}
		verdicts := map[string]any{}
		for _, e := range c.daemon.AuditLog(t)[c.seen:] {
			if e["host"] != "ok.test.example" || e["kind"] != "https" {
				continue
			}
			if e["generation"] == nil {
				t.Errorf("no generation: %v", e)
			}
			verdicts[fmt.Sprint(e["verdict"])] = true
		}
		if len(verdicts) == 0 {
			t.Error("no decisions were recorded")
		}
		c.daemon.WritePolicy(t, dnsList, httpsList, sshList)
		c.daemon.Ctl(t, nil, "reload")
	})
	t.Run("a grant without effect is refused", func(t *testing.T) {
		c.daemon.CtlRefused(t, "grant", "--kind", "https", "--for", "1m", "scoped.test.example")
	})
	t.Run("a timed grant ends by itself", func(t *testing.T) {
		c.daemon.Ctl(t, nil, "grant", "--kind", "https", "--for", "2s", "no.test.example")
		code := func() string {
			return c.curl(t, "-o", "/dev/null", "-w", "%{http_code}", "https://no.test.example/").stdout
		}
		if got := code(); got != "200" {
			t.Errorf("the grant does not hold: %s", got)
		}
		netlab.Await(t, 4*time.Second, "the grant to expire", func() bool { return code() == "403" })
	})
}

// TestOpenFlowsLoseTheirGrant holds that whatever is open when its rule goes away ends within a second, by a reload, by
// revoking a grant and by the grant's own end.
func TestOpenFlowsLoseTheirGrant(t *testing.T) {
	const host = "no.test.example"
	c := newCell(t, netlab.Options{})
	stream := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			acceptWebSocket(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, "data: tick\n\n"); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-time.After(20 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
	}
	c.world.Host(t, host, http.HandlerFunc(stream))
	// Each opens a flow and returns what reads from it until it ends.
	flows := map[string]func(t *testing.T) io.Reader{
		"server-sent events": func(t *testing.T) io.Reader {
			conn := c.tls(t, host)
			_, _ = io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			return conn
		},
		"an HTTP/2 stream": func(t *testing.T) io.Reader {
			h := c.h2(t, host)
			h.headers(1, true, get(host, "/events")...)
			reader, writer := io.Pipe()
			go func() {
				for {
					f, err := h.ReadFrame()
					switch f := f.(type) {
					case *http2.DataFrame:
						_, _ = writer.Write(f.Data())
						_ = h.WriteWindowUpdate(0, uint32(max(1, len(f.Data()))))
						_ = h.WriteWindowUpdate(1, uint32(max(1, len(f.Data()))))
						continue
					case *http2.RSTStreamFrame, *http2.GoAwayFrame:
						err = io.EOF
					}
					if err != nil {
						_ = writer.Close()
						return
					}
				}
			}()
			return reader
		},
		"a WebSocket": func(t *testing.T) io.Reader {
			conn := c.tls(t, host)
			_, _ = io.WriteString(conn, "GET /socket HTTP/1.1\r\nHost: "+host+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
			return conn
		},
		"an SSH tunnel": func(t *testing.T) io.Reader {
			_, reader, conn := c.connect(t, "sshno.test.example:22")
			_, _ = io.WriteString(conn, "SSH-2.0-x\r\n")
			return reader
		},
		"an idle kept-alive connection": func(t *testing.T) io.Reader {
			conn := c.tls(t, "ok2.test.example")
			_, _ = io.WriteString(conn, "GET /idle HTTP/1.1\r\nHost: ok2.test.example\r\n\r\n")
			return conn
		},
	}
	lists := func(t *testing.T, with bool) {
		https, ssh := "ok.test.example\n", sshList
		if with {
			https, ssh = https+host+"\nok2.test.example\n", ssh+"sshno.test.example\n"
		}
		c.daemon.WritePolicy(t, dnsList, https, ssh)
		c.daemon.Ctl(t, nil, "reload")
	}
	ends := map[string]struct {
		begin, end func(t *testing.T)
		within     time.Duration
	}{
		"H6 E11 by a reload": {func(t *testing.T) { lists(t, true) }, func(t *testing.T) { lists(t, false) }, time.Second},
		"H6 by revoking a grant": {func(t *testing.T) {
			lists(t, false)
			c.daemon.Ctl(t, nil, "grant", "--kind", "https", "--for", "1m", "*.test.example")
			c.daemon.Ctl(t, nil, "grant", "--kind", "ssh", "--for", "1m", "sshno.test.example")
		}, func(t *testing.T) {
			c.daemon.Ctl(t, nil, "revoke", "--kind", "https", "*.test.example")
			c.daemon.Ctl(t, nil, "revoke", "--kind", "ssh", "sshno.test.example")
		}, time.Second},
		"H6 by the grant's own end": {func(t *testing.T) {
			lists(t, false)
			c.daemon.Ctl(t, nil, "grant", "--kind", "https", "--for", "2s", "*.test.example")
			c.daemon.Ctl(t, nil, "grant", "--kind", "ssh", "--for", "2s", "sshno.test.example")
		}, func(*testing.T) {}, 3 * time.Second},
	}
	for how, e := range ends {
		t.Run(how, func(t *testing.T) {
			e.begin(t)
			c.mark(t)
			ended := map[string]chan error{}
			for what, open := range flows {
				reader := open(t)
				if n, err := reader.Read(make([]byte, 1)); n != 1 {
					t.Fatalf("%s does not begin: %v", what, err)
				}
				ended[what] = make(chan error, 1)
				go func() { _, err := io.Copy(io.Discard, reader); ended[what] <- err }()
			}
			e.end(t)
			limit := time.After(e.within)
			for what, end := range ended {
				select {
				case <-end:
				case <-limit:
					t.Fatalf("%s is still open after %s", what, e.within)
				}
			}
			c.denied(t, "revoked")
			// Nor does what the pool or the resolver kept serve anybody.
			c.world.Forget()
			if got := c.code(t, "https://no.test.example/again"); got != "403" {
				t.Errorf("a new request: %s", got)
			}
			c.noRequest(t)
		})
	}
}

// TestSilentStyle holds that the style "reset" answers with a reset and not with a byte.
func TestSilentStyle(t *testing.T) {
	c := newCell(t, netlab.Options{DenyStyle: "reset"})
	reset := func(t *testing.T, conn net.Conn) {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		got, err := io.ReadAll(conn)
		if len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %q, %v; want a reset and no byte", got, err)
		}
	}
	for what, hello := range map[string][]byte{
		"a denied name": rawHello(serverNames(0, "no.test.example")), "no name": rawHello(), "a bad name": rawHello(serverNames(0, "bad_name.example")),
		"no TLS": []byte("GET / HTTP/1.1\r\nHost: ok.test.example\r\n\r\n"),
	} {
		t.Run("HTTPS: "+what, func(t *testing.T) {
			c.mark(t)
			conn := c.raw(t, netlab.InternetAddr+":443")
			_, _ = conn.Write(hello)
			reset(t, conn)
			c.silent(t)
			c.denied(t, "no-rule", "no-sni", "malformed", "cleartext", "not-tls")
		})
	}
	t.Run("CONNECT", func(t *testing.T) {
		c.mark(t)
		conn := c.raw(t, netlab.FirewallAddr+":8080")
		_, _ = io.WriteString(conn, "CONNECT sshno.test.example:22 HTTP/1.1\r\nHost: sshno.test.example:22\r\n\r\n")
		reset(t, conn)
		c.silent(t)
		c.denied(t, "no-rule")
	})
	t.Run("a request inside an allowed connection", func(t *testing.T) {
		c.mark(t)
		conn := c.tls(t, "scoped.test.example")
		_, _ = io.WriteString(conn, "GET /secret HTTP/1.1\r\nHost: scoped.test.example\r\n\r\n")
		reset(t, conn)
		c.noRequest(t)
		c.denied(t, "path-rule")
	})
	t.Run("an HTTP/2 stream", func(t *testing.T) {
		c.mark(t)
		h := c.h2(t, "scoped.test.example")
		h.headers(1, true, get("scoped.test.example", "/secret")...)
		if got := h.outcome(1); got != "reset" && got != "closed" {
			t.Errorf("outcome %q", got)
		}
		c.noRequest(t)
	})
	t.Run("allowed traffic", func(t *testing.T) {
		if got := c.code(t, "https://ok.test.example/"); got != "200" {
			t.Errorf("status %s", got)
		}
	})
}
