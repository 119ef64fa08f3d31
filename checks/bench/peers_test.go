//go:build linux

package bench

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// peerRules send the agent's connections to the peers, as the firewall's ruleset sends them to the firewall.
const peerRules = `table inet peers {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    iifname "cell" ip daddr 11.22.34.12 tcp dport 443 redirect to :9012
    iifname "cell" ip daddr 11.22.34.22 tcp dport 443 redirect to :9022
    iifname "cell" ip daddr { 11.22.34.13, 11.22.34.23 } tcp dport 443 redirect to :9013
  }
}
`

const mitmConnect = netlab.PeerAddr + ":9080"

// addon is mitmproxy's part of what the firewall does: a list of hosts, and a line for every decision.
const addon = `import fnmatch, json, time
from mitmproxy import http

ALLOWED = ["*.bench.test"]

class Lists:
    def __init__(self):
        self.log = open(%LOG%, "a", buffering=1)

    def request(self, flow):
        host = flow.request.pretty_host
        allow = any(fnmatch.fnmatch(host, p) for p in ALLOWED)
        self.log.write(json.dumps({"time": time.time(), "host": host, "method": flow.request.method,
            "path": flow.request.path, "verdict": "allow" if allow else "deny"}) + "\n")
        if not allow:
            flow.response = http.Response.make(403, b"denied\n")

addons = [Lists()]
`

// startPeers runs the relay and mitmproxy on the other machine.
func (b *bench) startPeers(t *testing.T, roots string) {
	load := b.peer.Command(context.Background(), "nft", "-f", "-")
	load.Stdin = strings.NewReader(peerRules)
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("loading the peers' rules: %v: %s", err, out)
	}
	binary := b.path("relay")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "./relay")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the relay: %v: %s", err, out)
	}
	b.candidate(relay).pid = b.start(t, b.peer, binary, "-cert", b.path("leaf.pem"), "-key", b.path("leaf.key"), "-roots", roots,
		":9012=11.22.34.12:443", ":9022=11.22.34.22:443")
	b.await(t, b.peer, "127.0.0.1:9012")

	c := b.candidate(mitm)
	program, why := mitmdump()
	if c.why = why; why != "" {
		return
	}
	log := b.path("mitm.jsonl")
	script := b.write(t, "addon.py", strings.ReplaceAll(addon, "%LOG%", `"`+log+`"`))
	began := time.Now()
	c.pid = b.start(t, b.peer, program, "--mode", "transparent@9013", "--mode", "regular@9080", "--set", "confdir="+b.path("mitm"),
		"--set", "connection_strategy=lazy", "--set", "ssl_verify_upstream_trusted_ca="+roots, "--set", "flow_detail=0", "-s", script)
	b.await(t, b.peer, "127.0.0.1:9013")
	t.Logf("mitmproxy listens after %s", time.Since(began).Round(time.Millisecond))
}

// mitmdump finds the program that checks/bench/mitmproxy.sh installed, or the distribution's.
func mitmdump() (path, why string) {
	candidates := []string{os.Getenv("MITMDUMP")}
	if cache, err := os.UserCacheDir(); err == nil {
		candidates = append(candidates, filepath.Join(cache, "rootcell", "bench", "mitmproxy", "bin", "mitmdump"))
	}
	for _, c := range candidates {
		if c == "" {
			continue
		}
		if _, err := os.Stat(c); err == nil {
			return c, ""
		}
	}
	if p, err := exec.LookPath("mitmdump"); err == nil {
		return p, ""
	}
	return "", "mitmproxy is not installed (checks/bench/mitmproxy.sh)"
}
