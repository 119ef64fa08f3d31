//go:build linux

package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

func TestAvailability(t *testing.T) {
	c := newCell(t, netlab.Options{Extra: "[limits]\nhttps_connections = 64\nssh_tunnels = 8\ndns_connections = 8\n"})
	closed := func(t *testing.T) {
		t.Helper()
		c.mark(t)
		for _, url := range []string{"https://ok.test.example/", "http://ok.test.example/"} {
			if r := c.agent(t, "curl", "-sS", "-k", "-m", "2", "--resolve", "ok.test.example:443:"+netlab.InternetAddr, "--resolve", "ok.test.example:80:"+netlab.InternetAddr, url); r.code == 0 {
				t.Errorf("%s: %+v", url, r)
			}
		}
		if r := c.agent(t, "dig", "+tries=1", "+time=1", "@"+netlab.InternetAddr, "ok.test.example"); strings.Contains(r.stdout, "NOERROR") {
			t.Errorf("a resolver abroad answered:\n%s", r.stdout)
		}
		c.silent(t)
	}
	open := func(t *testing.T) {
		t.Helper()
		if got := c.code(t, "https://ok.test.example/"); got != "200" {
			t.Errorf("afterwards: %s", got)
		}
	}
	t.Run("K1 the daemon is dead", func(t *testing.T) {
		c.daemon.Kill()
		closed(t)
		c.daemon.Start(t)
		open(t)
	})
	t.Run("K1 the daemon hangs", func(t *testing.T) {
		if err := syscall.Kill(c.daemon.PID(), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		closed(t)
		if err := syscall.Kill(c.daemon.PID(), syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		open(t)
	})
	t.Run("K1 the ruleset is loaded again and again", func(t *testing.T) {
		c.mark(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 20 {
				c.daemon.LoadRuleset(t)
			}
		}()
		for {
			if conn, err := c.Agent.Dial(t.Context(), "tcp4", netlab.InternetAddr+":80"); err == nil {
				_ = conn.Close()
				t.Error("connected to port 80")
			}
			select {
			case <-done:
			default:
				continue
			}
			break
		}
		c.silent(t)
		open(t)
	})
	t.Run("K1 K2 without a ruleset nothing is forwarded", func(t *testing.T) {
		mustRun(t, "ip", "netns", "exec", c.Firewall.Name, "nft", "delete", "table", "inet", "rootcell")
		defer func() { c.daemon.LoadRuleset(t); open(t) }()
		c.mark(t)
		for _, port := range []string{"443", "80", "22"} {
			if r := c.agent(t, "timeout", "1", "bash", "-c", "exec 3<>/dev/tcp/"+netlab.InternetAddr+"/"+port); r.code == 0 {
				t.Errorf("connected to port %s", port)
			}
		}
		c.silent(t)
	})
	t.Run("K2 the firewall starts after the agent", func(t *testing.T) {
		c.daemon.Kill()
		closed(t) // the agent is up and tries; there is no daemon yet
		c.daemon.Start(t)
		open(t)
	})
	t.Run("K3 idle connections up to the limit leave DNS, SSH and control alone", func(t *testing.T) {
		var held []net.Conn
		defer func() {
			for _, conn := range held {
				_ = conn.Close()
			}
		}()
		for range 80 {
			if conn, err := c.Agent.Dial(t.Context(), "tcp4", netlab.InternetAddr+":443"); err == nil {
				held = append(held, conn)
			}
		}
		for range 12 {
			if conn, err := c.Agent.Dial(t.Context(), "tcp4", netlab.FirewallAddr+":53"); err == nil {
				held = append(held, conn)
			}
		}
		c.denied(t, "limit")
		if r := c.agent(t, "dig", "+short", "@"+netlab.FirewallAddr, "ok.test.example"); !strings.Contains(r.stdout, netlab.InternetAddr) {
			t.Errorf("DNS: %+v", r)
		}
		_, reader, conn := c.connect(t, "sshok.test.example:22")
		_, _ = io.WriteString(conn, "SSH-2.0-x\r\n")
		if line, _ := reader.ReadString('\n'); line != "SSH-2.0-netlab\r\n" {
			t.Errorf("SSH: %q", line)
		}
		c.daemon.Ctl(t, nil, "status")
	})
	t.Run("K4 a flood of denied names mints at a bounded rate", func(t *testing.T) {
		c.mark(t)
		minted := 0
		for i := range 150 {
			conn := c.raw(t, netlab.InternetAddr+":443")
			_, _ = conn.Write(rawHello(serverNames(0, strings.Repeat("n", 1+i%50)+"x.denied.example")))
			head := make([]byte, 1)
			if n, _ := io.ReadFull(conn, head); n == 1 && head[0] == 22 {
				minted++
			}
			_ = conn.Close()
		}
		if minted == 0 || minted > 120 {
			t.Errorf("%d of 150 were minted for", minted)
		}
		c.silent(t)
		open(t)
	})
	t.Run("K6 nonsense on every port leaves the process standing", func(t *testing.T) {
		pid := c.daemon.PID()
		for seed := range 60 {
			junk := make([]byte, 200)
			for i := range junk {
				junk[i] = byte((seed*31 + i*i*7) >> (seed % 3))
			}
			for _, addr := range []string{netlab.InternetAddr + ":443", netlab.FirewallAddr + ":8080", netlab.FirewallAddr + ":53"} {
				conn := c.raw(t, addr)
				_, _ = conn.Write(junk)
				_ = conn.Close()
			}
			conn := c.tls(t, "ok.test.example")
			_, _ = conn.Write(junk)
			_ = conn.Close()
		}
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("the daemon is gone: %v", err)
		}
		open(t)
	})
	t.Run("K7 leaves begin an hour ago", func(t *testing.T) {
		leaf := c.tls(t, "ok.test.example").ConnectionState().PeerCertificates[0]
		if ago := time.Since(leaf.NotBefore); ago < 59*time.Minute {
			t.Errorf("NotBefore was %s ago", ago)
		}
		block, _ := pem.Decode(c.daemon.CA)
		authority, err := x509.ParseCertificate(block.Bytes)
		if err != nil || time.Since(authority.NotBefore) < 59*time.Minute {
			t.Errorf("the CA begins at %v, %v", authority.NotBefore, err)
		}
	})
	t.Run("K8 another route of the agent's own still ends at the firewall", func(t *testing.T) {
		mustRun(t, "ip", "-n", c.Agent.Name, "route", "add", netlab.InternetAddr+"/32", "dev", "eth0")
		defer mustRun(t, "ip", "-n", c.Agent.Name, "route", "del", netlab.InternetAddr+"/32", "dev", "eth0")
		c.mark(t)
		if r := c.agent(t, "timeout", "3", "bash", "-c", "exec 3<>/dev/tcp/"+netlab.InternetAddr+"/80"); r.code == 0 {
			t.Error("connected to port 80")
		}
		c.silent(t)
	})
}
