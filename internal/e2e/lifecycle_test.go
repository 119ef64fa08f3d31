//go:build linux

package e2e

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

func TestPolicyLifecycle(t *testing.T) {
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
	t.Run("H3 a bad line refuses the whole file and the running policy stays", func(t *testing.T) {
		c.daemon.WritePolicy(t, dnsList, "no.test.example\nok.test.example ^(unclosed\n", sshList)
		c.daemon.CtlRefused(t, "reload")
		if r := c.curl(t, "-o", "/dev/null", "-w", "%{http_code}", "https://no.test.example/"); r.stdout != "403" {
			t.Errorf("the half of a bad file took effect: %+v", r)
		}
		if r := c.curl(t, "-o", "/dev/null", "-w", "%{http_code}", "https://ok.test.example/"); r.stdout != "200" {
			t.Errorf("the running policy did not stay: %+v", r)
		}
	})
	t.Run("H1 H2 empty and missing files deny", func(t *testing.T) {
		c.daemon.WritePolicy(t, "\n# nothing\n", "", "  \n")
		c.daemon.Ctl(t, nil, "reload")
		c.world.Forget()
		if r := c.curl(t, "-o", "/dev/null", "-w", "%{http_code}", "https://ok.test.example/"); r.stdout == "200" {
			t.Errorf("an empty list allows: %+v", r)
		}
		c.silent(t)
		c.daemon.Kill()
		for _, f := range []string{"dns", "https", "ssh"} {
			if err := os.Remove(c.Dir + "/policy/allowed-" + f + ".txt"); err != nil {
				t.Fatal(err)
			}
		}
		c.daemon.Start(t)
		if r := c.curl(t, "-o", "/dev/null", "-w", "%{http_code}", "https://ok.test.example/"); r.stdout == "200" {
			t.Errorf("missing files allow: %+v", r)
		}
		if r := c.agent(t, "dig", "@"+netlab.FirewallAddr, "ok.test.example"); !strings.Contains(r.stdout, "REFUSED") {
			t.Errorf("a missing DNS list allows:\n%s", r.stdout)
		}
		c.silent(t)
		c.daemon.WritePolicy(t, dnsList, httpsList, sshList)
		c.daemon.Ctl(t, nil, "reload")
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
	t.Run("K1 nothing passes while the daemon is dead", func(t *testing.T) {
		c.daemon.Kill()
		c.world.Forget()
		for _, url := range []string{"https://ok.test.example/", "http://ok.test.example/"} {
			if r := c.agent(t, "curl", "-sS", "-k", "-m", "3", "--resolve", "ok.test.example:443:"+netlab.InternetAddr, "--resolve", "ok.test.example:80:"+netlab.InternetAddr, url); r.code == 0 {
				t.Errorf("%s: %+v", url, r)
			}
		}
		c.silent(t)
		c.daemon.Start(t)
		if r := c.curl(t, "-o", "/dev/null", "-w", "%{http_code}", "https://ok.test.example/"); r.stdout != "200" {
			t.Errorf("after a restart: %+v", r)
		}
	})
}
