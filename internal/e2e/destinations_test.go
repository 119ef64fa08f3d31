//go:build linux

package e2e

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// record is a resource record in master-file form.
func record(t *testing.T, text string) dns.RR {
	t.Helper()
	rr, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

func TestDestinations(t *testing.T) {
	t.Parallel()
	c := newCell(t, netlab.Options{
		DNS: dnsList + "special.test.example\n", HTTPS: httpsList + "*.special.test.example\n", SSH: sshList + "*.special.test.example\n",
		Env: []string{"HTTPS_PROXY=http://" + netlab.InternetAddr + ":8443", "https_proxy=http://" + netlab.InternetAddr + ":8443", "ALL_PROXY=socks5://" + netlab.InternetAddr + ":2222"},
	})
	// Whoever is dialled at an address of the firewall itself is recorded here.
	var inside atomic.Int64
	for _, addr := range []string{"127.0.0.1:443", netlab.UplinkAddr + ":443", "127.0.0.1:22", netlab.UplinkAddr + ":22"} {
		ln, err := c.Firewall.Listen("tcp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				inside.Add(1)
				_ = conn.Close()
			}
		}()
	}
	untouched := func(t *testing.T) {
		t.Helper()
		if n := inside.Swap(0); n > 0 {
			t.Errorf("%d connections to the firewall itself", n)
		}
	}
	t.Run("C1 the address that the client picked is never dialled", func(t *testing.T) {
		c.mark(t)
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
	for what, addr := range map[string]string{
		"C2 metadata": "169.254.169.254", "C2 loopback": "127.0.0.1", "C2 ten": "10.1.2.3", "C2 home": "192.168.1.1", "C2 172": "172.16.5.5",
		"C2 the firewall": netlab.FirewallAddr, "C2 the agent": netlab.AgentAddr, "C7 the firewall's uplink": netlab.UplinkAddr,
		"C5 zero": "0.0.0.0", "C5 this network": "0.1.2.3", "C5 carrier": "100.64.1.1", "C5 benchmarking": "198.18.0.1", "C5 protocol assignments": "192.0.0.8",
		"C5 reserved": "240.0.0.1", "C5 multicast": "224.0.0.251", "C5 broadcast": "255.255.255.255", "C5 documentation": "203.0.113.5", "C5 a cloud's own": "168.63.129.16",
	} {
		t.Run(what+" "+addr, func(t *testing.T) {
			host := "n" + strings.ReplaceAll(addr, ".", "-") + ".special.test.example"
			c.world.Host(t, host, nil, addr)
			c.mark(t)
			if r := c.curl(t, "-i", "--resolve", host+":443:"+netlab.InternetAddr, "https://"+host+"/"); !strings.Contains(r.stdout, "special-address") {
				t.Errorf("HTTPS: %+v", r)
			}
			if r := c.agent(t, "dig", "+short", "@"+netlab.FirewallAddr, host); strings.Contains(r.stdout, addr) {
				t.Errorf("DNS: %q", r.stdout)
			}
			if response, _, _ := c.connect(t, host+":22"); response.StatusCode != http.StatusForbidden {
				t.Errorf("CONNECT: %s", response.Status)
			}
			if seen := c.world.Sightings("tls"); len(seen) > 0 {
				t.Errorf("the far side saw %v", seen)
			}
			untouched(t)
			c.denied(t, "special-address")
		})
	}
	t.Run("C2 C5 allowed name with special addresses only", func(t *testing.T) {
		c.mark(t)
		if r := c.curl(t, "-i", "https://private.test.example/"); !strings.Contains(r.stdout, "special-address") {
			t.Errorf("got %+v", r)
		}
		if response, _, _ := c.connect(t, "private.test.example:22"); response.StatusCode != http.StatusForbidden {
			t.Errorf("CONNECT: %s", response.Status)
		}
		untouched(t)
	})
	t.Run("C3 an answer that changes between looking and dialling", func(t *testing.T) {
		var n atomic.Int64
		c.world.Answer("rebind.special.test.example", func() []dns.RR {
			addr := []string{netlab.InternetAddr, "127.0.0.1", netlab.UplinkAddr}[n.Add(1)%3]
			return []dns.RR{record(t, "rebind.special.test.example. 0 IN A "+addr)}
		})
		for range 8 {
			c.code(t, "--resolve", "rebind.special.test.example:443:"+netlab.InternetAddr, "https://rebind.special.test.example/")
			_ = exchange(t, c.raw(t, netlab.FirewallAddr+":8080"), "CONNECT rebind.special.test.example:22 HTTP/1.1\r\nHost: rebind.special.test.example:22\r\n\r\n")
		}
		untouched(t)
	})
	t.Run("C4 IPv6 is not asked for, nor taken when it is told", func(t *testing.T) {
		for i, addr := range []string{"::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "fe80::1", "fd00:ec2::254", "::1"} {
			host := fmt.Sprintf("six%d.special.test.example", i)
			c.world.Answer(host, func() []dns.RR { return []dns.RR{record(t, host+". 60 IN AAAA "+addr)} })
			c.mark(t)
			if r := c.curl(t, "-i", "--resolve", host+":443:"+netlab.InternetAddr, "https://"+host+"/"); strings.Contains(r.stdout, " 200") {
				t.Errorf("%s: %+v", addr, r)
			}
			if r := c.agent(t, "dig", "+short", "@"+netlab.FirewallAddr, "AAAA", host); strings.TrimSpace(r.stdout) != "" {
				t.Errorf("%s: AAAA answered %q", addr, r.stdout)
			}
			if seen := c.world.Sightings("dns", "AAAA"); len(seen) > 0 {
				t.Errorf("the far side saw %v", seen)
			}
		}
		untouched(t)
	})
	t.Run("C6 address literals are never names", func(t *testing.T) {
		c.mark(t)
		for _, target := range []string{"127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::1]", "[::]", "0", netlab.InternetAddr, "１２７.0.0.1"} {
			if response, _, _ := c.connect(t, target+":22"); response.StatusCode == http.StatusOK {
				t.Errorf("CONNECT %s was allowed", target)
			}
			conn := c.tls(t, "ok.test.example")
			if answer := exchange(t, conn, "GET / HTTP/1.1\r\nHost: "+target+"\r\nConnection: close\r\n\r\n"); strings.Contains(answer, " 200 ") {
				t.Errorf("Host %s: %q", target, answer)
			}
		}
		c.unasked(t)
		untouched(t)
	})
	t.Run("C7 the transparent port is not reachable by itself", func(t *testing.T) {
		c.mark(t)
		if conn, err := c.Agent.Dial(t.Context(), "tcp4", netlab.FirewallAddr+":8081"); err == nil {
			_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
			if tls.Client(conn, &tls.Config{ServerName: "ok.test.example", InsecureSkipVerify: true}).Handshake() == nil {
				t.Error("a direct connection to the transparent port was served")
			}
		}
		for _, port := range []string{"8080", "8081", "53", "443"} {
			if response, _, _ := c.connect(t, netlab.FirewallAddr+":"+port); response.StatusCode == http.StatusOK {
				t.Errorf("CONNECT to the firewall's port %s was allowed", port)
			}
		}
		c.silent(t)
	})
	t.Run("C8 another upstream port", func(t *testing.T) {
		c.mark(t)
		for _, port := range []string{"8443", "22", "80"} {
			if r := c.curl(t, "--http1.1", "-i", "-H", "Host: ok.test.example:"+port, "https://ok.test.example/"); strings.Contains(r.stdout, " 200") {
				t.Errorf("port %s: %+v", port, r)
			}
		}
		if r := c.curl(t, "-m", "3", "--resolve", "ok.test.example:8443:"+netlab.InternetAddr, "https://ok.test.example:8443/"); r.code == 0 {
			t.Errorf("a connection to port 8443: %+v", r)
		}
		c.unasked(t)
		c.denied(t, "port")
	})
	t.Run("C9 aliases are followed, and the name itself is verified", func(t *testing.T) {
		alias := func(host, target, addr string) {
			c.world.Answer(host, func() []dns.RR {
				return []dns.RR{record(t, host+". 60 IN CNAME "+target+"."), record(t, target+". 60 IN A "+addr)}
			})
		}
		alias("alias.special.test.example", "no.test.example", netlab.InternetAddr)
		c.mark(t)
		at := []string{"--resolve", "alias.special.test.example:443:" + netlab.InternetAddr, "--resolve", "inner.special.test.example:443:" + netlab.InternetAddr}
		if got := c.code(t, append(at, "https://alias.special.test.example/alias")...); got != "200" {
			t.Errorf("status %s", got)
		}
		if seen := c.world.Sightings("tls"); len(seen) != 1 || seen[0].Name != "alias.special.test.example" {
			t.Errorf("the far side was asked for %v, want the name that was allowed", seen)
		}
		if e := c.daemon.AwaitAudit(t, map[string]any{"path": "/alias"}); !strings.HasPrefix(fmt.Sprint(e["upstream"]), netlab.InternetAddr) {
			t.Errorf("the audit line has no address: %v", e)
		}
		alias("inner.special.test.example", "vpc.internal", "10.0.0.7")
		if got := c.code(t, append(at, "https://inner.special.test.example/")...); got == "200" {
			t.Error("an alias to an internal address was followed")
		}
	})
	t.Run("C10 two names at one address share no connection", func(t *testing.T) {
		for _, version := range []string{"--http1.1", "--http2"} {
			c.mark(t)
			for _, host := range []string{"ok.test.example", "ok2.test.example"} {
				if got := c.curl(t, version, "https://"+host+"/pool").stdout; !strings.HasPrefix(got, host+" ") {
					t.Errorf("%s answered %q", host, got)
				}
			}
			for _, s := range c.world.Sightings("https", "/pool") {
				if s.Name != "ok.test.example" && s.Name != "ok2.test.example" {
					t.Errorf("the far side saw %v", s)
				}
			}
		}
	})
	t.Run("C11 single labels and local names", func(t *testing.T) {
		c.mark(t)
		for _, name := range []string{"ok", "localhost", "localhost.", "printer.local", "host.internal"} {
			if r := c.agent(t, "dig", "+tries=1", "@"+netlab.FirewallAddr, name); !strings.Contains(r.stdout, "REFUSED") {
				t.Errorf("%s:\n%s", name, r.stdout)
			}
			if got := c.code(t, "-m", "3", "-k", "--resolve", strings.TrimSuffix(name, ".")+":443:"+netlab.InternetAddr, "https://"+name+"/"); got == "200" {
				t.Errorf("%s: %s", name, got)
			}
		}
		c.silent(t)
	})
	t.Run("C12 no proxy of the environment", func(t *testing.T) {
		c.mark(t)
		if got := c.code(t, "https://ok.test.example/direct"); got != "200" {
			t.Errorf("status %s", got)
		}
		if seen := c.world.Sightings("tcp"); len(seen) > 0 {
			t.Errorf("the firewall used a proxy: %v", seen)
		}
		if r := c.agent(t, "dig", "+tries=1", "@"+netlab.FirewallAddr, "wpad.test.example"); !strings.Contains(r.stdout, "REFUSED") {
			t.Errorf("wpad:\n%s", r.stdout)
		}
	})
	t.Run("C13 another process and port of the agent", func(t *testing.T) {
		c.mark(t)
		relay := c.Agent.Command(t.Context(), "socat", "TCP4-LISTEN:7443,bind=127.0.0.1,fork,reuseaddr", "TCP4:"+netlab.InternetAddr+":443,sourceport=61443,reuseaddr")
		if err := relay.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = relay.Process.Kill(); _ = relay.Wait() }()
		netlab.Await(t, 5*time.Second, "the relay", func() bool {
			conn, err := c.Agent.Dial(t.Context(), "tcp4", "127.0.0.1:7443")
			if err == nil {
				_ = conn.Close()
			}
			return err == nil
		})
		if got := c.code(t, "--connect-to", "no.test.example:443:127.0.0.1:7443", "https://no.test.example/"); got == "200" {
			t.Errorf("status %s", got)
		}
		if r := c.agent(t, "setpriv", "--reuid", "65534", "--clear-groups", "curl", "-sS", "-k", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", "no.test.example:443:"+netlab.InternetAddr, "https://no.test.example/"); r.stdout != "403" {
			t.Errorf("another user: %+v", r)
		}
		c.unasked(t)
	})
}
