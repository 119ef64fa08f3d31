//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

func TestDNSLeaks(t *testing.T) {
	c := newCell(t, netlab.Options{})
	query := func(t *testing.T, args ...string) string {
		t.Helper()
		return c.agent(t, "dig", append([]string{"+tries=1", "+time=2"}, args...)...).stdout
	}
	for name, args := range map[string][]string{
		"D1 another resolver":         {"@" + netlab.InternetAddr, "ok.test.example"},
		"D1 another resolver by tcp":  {"@" + netlab.InternetAddr, "+tcp", "ok.test.example"},
		"D2 a denied name":            {"@" + netlab.FirewallAddr, "secret.no.test.example"},
		"D4 a name that ends alike":   {"@" + netlab.FirewallAddr, "evilok.test.example"},
		"D4 an allowed name as label": {"@" + netlab.FirewallAddr, "ok.test.example.evil.example"},
		"D5 TXT":                      {"@" + netlab.FirewallAddr, "TXT", "ok.test.example"},
		"D5 ANY":                      {"@" + netlab.FirewallAddr, "ANY", "ok.test.example"},
		"D5 chaos":                    {"@" + netlab.FirewallAddr, "CH", "TXT", "version.bind"},
		"D12 reverse":                 {"@" + netlab.FirewallAddr, "-x", "10.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			c.world.Forget()
			if out := query(t, args...); strings.Contains(out, "NOERROR") && strings.Contains(out, "ANSWER SECTION") {
				t.Errorf("answered:\n%s", out)
			}
			c.silent(t)
		})
	}
	t.Run("D9 what the client adds stays here", func(t *testing.T) {
		c.world.Forget()
		query(t, "@"+netlab.FirewallAddr, "+subnet=203.0.113.0/24", "+cookie=0011223344556677", "OK.test.EXAMPLE")
		if seen := c.world.Sightings("dns"); len(seen) != 1 || seen[0].Name != "ok.test.example" || seen[0].Text != "A" {
			t.Errorf("the far side saw %v", seen)
		}
	})
}

func TestOtherTrafficIsRefused(t *testing.T) {
	c := newCell(t, netlab.Options{})
	// The agent is root: it may also give itself routes and addresses.
	for _, port := range []string{"22", "25", "80", "853", "2222", "8443", "9418"} {
		t.Run("E2 tcp "+port, func(t *testing.T) {
			c.world.Forget()
			start := time.Now()
			if conn, err := c.Agent.Dial(t.Context(), "tcp4", netlab.InternetAddr+":"+port); err == nil {
				_ = conn.Close()
				t.Error("connected")
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("the client waited %s for the refusal", took)
			}
			c.silent(t)
		})
	}
	t.Run("E1 QUIC and other datagrams", func(t *testing.T) {
		c.world.Forget()
		for _, port := range []string{"443", "123", "853"} {
			conn, err := c.Agent.Dial(t.Context(), "udp4", netlab.InternetAddr+":"+port)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
			_, _ = io.WriteString(conn, "canary")
			if _, err := conn.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
				t.Errorf("udp %s: want a prompt refusal, got %v", port, err)
			}
			_ = conn.Close()
		}
		c.silent(t)
	})
	t.Run("E3 ping beyond the firewall", func(t *testing.T) {
		if r := c.agent(t, "ping", "-c1", "-W1", netlab.InternetAddr); r.code == 0 {
			t.Errorf("answered: %s", r.stdout)
		}
	})
	t.Run("E7 a forged source address", func(t *testing.T) {
		c.world.Forget()
		for _, source := range []string{"192.168.77.99", "11.22.33.9"} {
			mustRun(t, "ip", "-n", c.Agent.Name, "addr", "add", source+"/32", "dev", "eth0")
			r := c.agent(t, "curl", "-sS", "-m", "2", "-k", "--interface", source, "--resolve", "ok.test.example:443:"+netlab.InternetAddr, "https://ok.test.example/forged")
			if r.code == 0 {
				t.Errorf("from %s: %+v", source, r)
			}
			mustRun(t, "ip", "-n", c.Agent.Name, "addr", "del", source+"/32", "dev", "eth0")
		}
		c.silent(t)
	})
	t.Run("E8 the firewall's outer address", func(t *testing.T) {
		for _, target := range []string{netlab.UplinkAddr + ":22", netlab.UplinkAddr + ":8080", netlab.UplinkAddr + ":53", netlab.FirewallAddr + ":22"} {
			if conn, err := c.Agent.Dial(t.Context(), "tcp4", target); err == nil {
				_ = conn.Close()
				t.Errorf("connected to %s", target)
			}
		}
	})
	t.Run("E4 IPv6", func(t *testing.T) {
		mustRun(t, "ip", "-n", c.Internet.Name, "addr", "add", "2001:db8:1::1/64", "dev", "eth0", "nodad")
		mustRun(t, "ip", "-n", c.Firewall.Name, "addr", "add", "2001:db8:1::2/64", "dev", netlab.UplinkIface, "nodad")
		mustRun(t, "ip", "-n", c.Firewall.Name, "addr", "add", "2001:db8:2::10/64", "dev", netlab.PrivateIface, "nodad")
		mustRun(t, "ip", "-n", c.Agent.Name, "addr", "add", "2001:db8:2::11/64", "dev", "eth0", "nodad")
		mustRun(t, "ip", "-n", c.Agent.Name, "-6", "route", "add", "default", "via", "2001:db8:2::10")
		c.world.Forget()
		for _, target := range []string{"[2001:db8:1::1]:443", "[2001:db8:2::10]:53", "[2001:db8:2::10]:8080"} {
			if conn, err := c.Agent.Dial(t.Context(), "tcp6", target); err == nil {
				_ = conn.Close()
				t.Errorf("connected to %s", target)
			}
		}
		c.silent(t)
	})
	t.Run("C2 the daemon's user cannot reach special addresses either", func(t *testing.T) {
		for _, target := range []string{"10.9.9.9:443", "169.254.169.254:80", "192.168.1.1:443", netlab.InternetAddr + ":80"} {
			host, port, _ := strings.Cut(target, ":")
			cmd := c.Firewall.Command(t.Context(), "setpriv", "--reuid", "900", "--regid", "900", "--clear-groups",
				"bash", "-c", fmt.Sprintf("timeout 2 bash -c 'exec 3<>/dev/tcp/%s/%s'", host, port))
			if err := cmd.Run(); err == nil {
				t.Errorf("connected to %s", target)
			}
		}
	})
}

func mustRun(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

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
