//go:build linux

package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// candidate is one way from the agent to its servers. Each has servers of its own, so that all run at once.
type candidate struct {
	name   string
	net    string // network of its servers
	number int    // of its servers in that network
	pid    int    // 0: there is no process in between
	why    string // not measured for this reason
}

const (
	direct = "direct"
	relay  = "TLS relay"
	ours   = "rootcell"
	mitm   = "mitmproxy"
)

// web is the name of the candidate's nginx, origin that of its Go server.
func (c *candidate) web() string    { return "web-" + c.label() + ".bench.test" }
func (c *candidate) origin() string { return "origin-" + c.label() + ".bench.test" }

func (c *candidate) webAddr() string    { return fmt.Sprintf("%s.1%d", c.net, c.number) }
func (c *candidate) originAddr() string { return fmt.Sprintf("%s.2%d", c.net, c.number) }

func (c *candidate) label() string { return strings.ToLower(strings.ReplaceAll(c.name, " ", "-")) }

// cpu is the processor time that the candidate's process has used.
func (c *candidate) cpu(tb testing.TB) time.Duration {
	tb.Helper()
	if c.pid == 0 {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.pid))
	if err != nil {
		tb.Fatal(err)
	}
	// The fields follow the program's name, which may hold spaces; utime and stime are the 14th and 15th (proc(5)).
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// rss reads a line such as VmRSS or VmHWM of the candidate's status, in MiB.
func (c *candidate) rss(tb testing.TB, line string) float64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid))
	if err != nil {
		tb.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				tb.Fatal(err)
			}
			return kib / 1024
		}
	}
	tb.Fatalf("no %s in the status of process %d", line, c.pid)
	return 0
}

// bench is the laboratory with every candidate running in it.
type bench struct {
	settings
	lab        *netlab.Lab
	peer       *netlab.Namespace
	daemon     *netlab.Daemon
	candidates []*candidate
	files      string // what nginx serves
}

func (b *bench) candidate(name string) *candidate {
	for _, c := range b.candidates {
		if c.name == name {
			return c
		}
	}
	return nil
}

// running are the candidates that can be measured.
func (b *bench) running() []*candidate {
	var out []*candidate
	for _, c := range b.candidates {
		if c.why == "" {
			out = append(out, c)
		}
	}
	return out
}

func newBench(t *testing.T, s settings) *bench {
	b := &bench{settings: s, lab: netlab.New(t)}
	b.peer = b.lab.AddPeer(t)
	b.candidates = []*candidate{
		{name: direct, net: "11.22.34", number: 1}, {name: relay, net: "11.22.34", number: 2},
		{name: ours, net: "11.22.33", number: 4}, {name: mitm, net: "11.22.34", number: 3},
	}
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n")
	addresses := map[string]string{}
	for _, c := range b.candidates {
		for name, addr := range map[string]string{c.web(): c.webAddr(), c.origin(): c.originAddr()} {
			b.lab.AddInternetAddr(t, addr+"/24")
			fmt.Fprintf(&hosts, "%s %s\n", addr, name)
			addresses[name] = addr
		}
	}
	b.lab.Hosts(t, hosts.String())
	signer := netlab.NewSigner(t)
	cert := b.certificate(t, signer)
	roots := b.write(t, "world.pem", signer.Roots)
	serveDNS(t, b.lab.Internet, []string{netlab.InternetAddr, netlab.PeerInternetAddr}, addresses)
	b.startNginx(t)
	for _, c := range b.candidates {
		serveOrigin(t, b.lab.Internet, c.originAddr(), cert)
	}
	b.daemon = netlab.StartDaemon(t, b.lab, signer, netlab.Options{
		DNS: dnsList(0), HTTPS: "*.bench.test\n", SSH: b.candidate(ours).origin() + "\n",
		Extra: "[limits]\nhttps_connections = 16384\n",
	})
	b.candidate(ours).pid = b.daemon.PID()
	b.startPeers(t, roots)
	t.Logf("for profilers: rootcell-firewall is process %d", b.daemon.PID())
	return b
}

// certificate writes a certificate for every server's name, and its key, and returns it.
func (b *bench) certificate(t *testing.T, signer *netlab.World) tls.Certificate {
	leaf, err := signer.Leaf("*.bench.test")
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	b.write(t, "leaf.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]})))
	b.write(t, "leaf.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	return *leaf
}

func (b *bench) path(name string) string { return filepath.Join(b.lab.Dir, name) }

func (b *bench) write(t *testing.T, name, text string) string {
	if err := os.WriteFile(b.path(name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return b.path(name)
}

// start runs a program of the laboratory until the test ends and returns its process.
func (b *bench) start(t *testing.T, ns *netlab.Namespace, name string, args ...string) int {
	cmd := ns.Command(context.Background(), name, args...)
	out, err := os.Create(b.path(filepath.Base(name) + ".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(cmd.Env, "HOME="+b.lab.Dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = out.Close()
		if t.Failed() {
			text, _ := os.ReadFile(out.Name())
			t.Logf("%s said: %s", name, text[:min(len(text), 4000)])
		}
	})
	return cmd.Process.Pid
}

// agent runs a client in the agent's place and returns what it printed.
func (b *bench) agent(t *testing.T, name string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	out, err := b.lab.Agent.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// have reports whether a tool is installed.
func have(tool string) bool {
	_, err := exec.LookPath(tool)
	return err == nil
}
