//go:build linux

package firewallinit

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

const chains = `{"nftables": [{"metainfo": {"version": "1.0.6"}},
{"chain": {"family": "inet", "table": "rootcell", "name": "prerouting_nat", "type": "nat", "hook": "prerouting", "prio": -100, "policy": "accept"}},
{"chain": {"family": "inet", "table": "rootcell", "name": "from_agent"}},
{"chain": {"family": "inet", "table": "rootcell", "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
{"chain": {"family": "inet", "table": "rootcell", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
{"chain": {"family": "inet", "table": "rootcell", "name": "output", "type": "filter", "hook": "output", "prio": 0, "policy": "drop"}}]}`

func TestCheckChains(t *testing.T) {
	if err := CheckChains([]byte(chains)); err != nil {
		t.Errorf("the ruleset's own chains: %v", err)
	}
	cases := map[string]string{
		"nothing":                         "",
		"no chains":                       `{"nftables": []}`,
		"an input that accepts":           strings.Replace(chains, `"hook": "input", "prio": 0, "policy": "drop"`, `"hook": "input", "prio": 0, "policy": "accept"`, 1),
		"no forward chain":                strings.Replace(chains, `"hook": "forward"`, `"hook": "ingress"`, 1),
		"another table's output":          strings.Replace(chains, `"table": "rootcell", "name": "output"`, `"table": "other", "name": "output"`, 1),
		"an IPv4 table":                   strings.ReplaceAll(chains, `"family": "inet"`, `"family": "ip"`),
		"a nat chain in a filter's place": strings.Replace(chains, `"type": "filter", "hook": "output"`, `"type": "nat", "hook": "output"`, 1),
	}
	for name, listing := range cases {
		t.Run(name, func(t *testing.T) {
			if err := CheckChains([]byte(listing)); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestConfineRefusesOtherPrograms(t *testing.T) {
	for _, name := range []string{"", "sh", "/bin/sh", "../daemon"} {
		if err := Confine(name); err == nil {
			t.Errorf("Confine(%q) did not refuse", name)
		}
	}
}

func TestModes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	root := t.TempDir()
	cfg := guestcfg.Config{Firewall: &guestcfg.Firewall{
		TOML: "schema = 1", CACert: "cert", CAKey: "key", UpstreamRoots: "roots", Policy: map[string]string{"allowed-dns.txt": "github.com"},
	}}
	if err := writeFiles(root, cfg); err != nil {
		t.Fatal(err)
	}
	const daemon = guestcfg.FirewallDaemonUID
	for name, want := range map[string]struct {
		mode os.FileMode
		gid  uint32
	}{
		"/run/rootcell":                                 {os.ModeDir | os.ModeSticky | 0o770, daemon},
		guestcfg.FirewallTOMLPath:                       {0o640, daemon},
		guestcfg.FirewallCACert:                         {0o644, 0},
		guestcfg.FirewallRoots:                          {0o644, 0},
		guestcfg.FirewallCAKey:                          {0o640, daemon},
		guestcfg.FirewallPolicyDir:                      {os.ModeDir | 0o755, 0},
		guestcfg.FirewallPolicyDir + "/allowed-dns.txt": {0o644, 0},
	} {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		if info.Mode() != want.mode || stat.Uid != 0 || stat.Gid != want.gid {
			t.Errorf("%s is %v of %d:%d, want %v of 0:%d", name, info.Mode(), stat.Uid, stat.Gid, want.mode, want.gid)
		}
	}
}
