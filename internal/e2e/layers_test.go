//go:build linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

func TestOtherTrafficIsRefused(t *testing.T) {
	t.Parallel()
	c := newCell(t, netlab.Options{})
	// The agent is root: it may also give itself routes and addresses.
	for _, port := range []string{"21", "22", "25", "80", "445", "853", "993", "2222", "3306", "5060", "5432", "5900", "6379", "8080", "8443", "9418"} {
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

// counter is the number of packets that a named counter of the ruleset has seen.
func (c *cell) counter(t *testing.T, name string) int {
	t.Helper()
	out, err := c.Firewall.Command(t.Context(), "nft", "list", "counter", "inet", "rootcell", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(out), "packets ")
	var packets int
	if _, err := fmt.Sscan(rest, &packets); err != nil {
		t.Fatalf("reading %q: %v", out, err)
	}
	return packets
}

// packets has the agent send raw packets of a kind; see testdata/packets.py.
func (c *cell) packets(t *testing.T, kind string, more ...string) {
	t.Helper()
	_ = c.raw(t, netlab.FirewallAddr+":53").Close() // fills the neighbour table
	if r := c.python(t, "packets.py", append([]string{kind, netlab.AgentAddr, netlab.FirewallAddr, netlab.InternetAddr}, more...)...); r.code != 0 {
		t.Fatalf("sending %s: %+v", kind, r)
	}
}

// sniff watches the far side's link for anything of the agent's own and returns what came so far.
func (c *cell) sniff(t *testing.T) (seen func() string) {
	t.Helper()
	script, err := filepath.Abs("testdata/sniffer.py")
	if err != nil {
		t.Fatal(err)
	}
	cmd := c.Internet.Command(t.Context(), "/usr/bin/python3", script, "eth0", netlab.AgentAddr)
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	netlab.Await(t, 5*time.Second, "the sniffer", func() bool { return strings.Contains(out.String(), "listening") })
	return func() string { return strings.TrimPrefix(out.String(), "listening\n") }
}

// lockedBuffer is written by a program while the test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// inbox listens for datagrams in the firewall and counts them.
func (c *cell) inbox(t *testing.T, addr string) *atomic.Int64 {
	t.Helper()
	pc, err := c.Firewall.ListenPacket("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	var n atomic.Int64
	go func() {
		for {
			if _, _, err := pc.ReadFrom(make([]byte, 2048)); err != nil {
				return
			}
			n.Add(1)
		}
	}()
	return &n
}

func TestRawPackets(t *testing.T) {
	t.Parallel()
	c := newCell(t, netlab.Options{})
	seen := c.sniff(t)
	loopback, dhcp := c.inbox(t, "127.0.0.1:9999"), c.inbox(t, "0.0.0.0:68")
	outer := c.inbox(t, netlab.UplinkAddr+":9999")
	t.Run("the sniffer sees what does get out", func(t *testing.T) {
		_, _, conn := c.connect(t, "sshok.test.example:22")
		_, _ = io.WriteString(conn, "SSH-2.0-CANARY-rootcell\r\n")
		netlab.Await(t, 5*time.Second, "the canary", func() bool { return seen() != "" })
	})
	known := seen()
	run := func(id, kind, counter string, more ...string) {
		t.Run(id, func(t *testing.T) {
			c.world.Forget()
			before := 0
			if counter != "" {
				before = c.counter(t, counter)
			}
			c.packets(t, kind, more...)
			if counter != "" {
				netlab.Await(t, 2*time.Second, "the counter "+counter, func() bool { return c.counter(t, counter) > before })
			}
			// An allowed request afterwards: whatever was sent before it has gone through the firewall by now.
			if got := c.code(t, "https://ok.test.example/after"); got != "200" {
				t.Errorf("afterwards: %s", got)
			}
			if now := seen(); now != known {
				t.Errorf("at the far side: %s", strings.TrimPrefix(now, known))
				known = now
			}
			if got := c.world.Sightings("udp"); len(got) > 0 {
				t.Errorf("the far side saw %v", got)
			}
			if n := loopback.Load() + dhcp.Load() + outer.Load(); n > 0 {
				t.Errorf("%d datagrams reached services inside the firewall", n)
			}
		})
	}
	run("E3 other IP protocols", "protocols", "agent_other")
	run("E7 forged sources", "spoof", "agent_spoofed", netlab.UplinkAddr)
	run("E8 the firewall's loopback and outer address", "loopback", "", netlab.UplinkAddr)
	run("E9 IP options and source routes", "options", "agent_options")
	run("E9 fragments", "fragments", "")
	run("E9 data in a SYN, and odd flags", "fastopen", "")
	run("E12 VLAN, LLDP, EAPOL and multicast", "frames", "")
	run("E5 a DHCP server on the agent's link", "dhcp", "")
	t.Run("E5 a router advertisement", func(t *testing.T) {
		before := c.counter(t, "agent_ipv6")
		c.packets(t, "ra")
		netlab.Await(t, 2*time.Second, "the counter agent_ipv6", func() bool { return c.counter(t, "agent_ipv6") > before })
		out, err := c.Firewall.Command(t.Context(), "ip", "-6", "route").Output()
		if err != nil || strings.Contains(string(out), "fe80::1 ") || strings.Contains(string(out), "default") {
			t.Errorf("the firewall took the route: %s, %v", out, err)
		}
	})
	t.Run("E6 forged ARP", func(t *testing.T) {
		neighbour := func() string {
			out, _ := c.Firewall.Command(t.Context(), "ip", "neigh", "show", netlab.InternetAddr, "dev", netlab.UplinkIface).Output()
			return strings.Join(strings.Fields(string(out))[:3], " ")
		}
		before := neighbour()
		c.packets(t, "arp", netlab.UplinkAddr)
		if after := neighbour(); after != before {
			t.Errorf("the far side's neighbour entry was %q and is %q", before, after)
		}
		if got := c.code(t, "https://ok.test.example/arp"); got != "200" {
			t.Errorf("afterwards: %s", got)
		}
	})
	t.Run("E10 no connection tracking helper opens a port", func(t *testing.T) {
		c.world.Forget()
		for _, target := range []string{netlab.InternetAddr + ":21", netlab.InternetAddr + ":5060", netlab.InternetAddr + ":6667"} {
			if conn, err := c.Agent.Dial(t.Context(), "tcp4", target); err == nil {
				_ = conn.Close()
				t.Errorf("connected to %s", target)
			}
		}
		conn := c.raw(t, netlab.InternetAddr+":443")
		_, _ = io.WriteString(conn, "PORT 192,168,77,11,15,160\r\nREGISTER sip:x SIP/2.0\r\nContact: <sip:x@"+netlab.AgentAddr+":4000>\r\n\r\n")
		ln, err := c.Agent.Listen("tcp4", "0.0.0.0:4000")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		for _, target := range []string{netlab.AgentAddr + ":4000", netlab.UplinkAddr + ":4000"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if conn, err := c.Internet.Dial(ctx, "tcp4", target); err == nil {
				_ = conn.Close()
				t.Errorf("the far side connected to %s", target)
			}
			cancel()
		}
		if text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_helper"); err == nil && strings.TrimSpace(string(text)) != "0" {
			t.Errorf("automatic helpers are on: %s", text)
		}
	})
	t.Run("E10 many half-open connections leave the others alone", func(t *testing.T) {
		for port := range 2000 {
			if conn, err := c.Agent.Dial(t.Context(), "udp4", fmt.Sprintf("%s:%d", netlab.InternetAddr, 10000+port)); err == nil {
				_, _ = io.WriteString(conn, "CANARY-rootcell")
				_ = conn.Close()
			}
		}
		if got := c.code(t, "https://ok.test.example/flood"); got != "200" {
			t.Errorf("afterwards: %s", got)
		}
		if now := seen(); now != known {
			t.Errorf("at the far side: %s", strings.TrimPrefix(now, known))
		}
	})
	t.Run("E14 the host, its gateway and the networks around it", func(t *testing.T) {
		c.world.Forget()
		for _, port := range []string{"5900", "445"} {
			ln, err := c.Internet.Listen("tcp4", "0.0.0.0:"+port)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = ln.Close() }()
		}
		for _, target := range []string{netlab.InternetAddr + ":5900", netlab.InternetAddr + ":445", netlab.InternetAddr + ":22", "192.168.1.1:80", "10.0.2.2:22", "172.17.0.1:2375", "169.254.169.254:80"} {
			start := time.Now()
			if conn, err := c.Agent.Dial(t.Context(), "tcp4", target); err == nil {
				_ = conn.Close()
				t.Errorf("connected to %s", target)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("%s: refused after %s only", target, took)
			}
		}
		if seen := c.world.Sightings("tcp"); len(seen) > 0 {
			t.Errorf("the far side saw %v", seen)
		}
	})
}
