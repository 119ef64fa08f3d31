package ruleset

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/specialaddr"
)

var update = flag.Bool("update", false, "rewrite the golden file")

func params() Params {
	return Params{
		PrivateInterface: "cell",
		Agent:            netip.MustParseAddr("192.168.77.11"),
		Firewall:         netip.MustParseAddr("192.168.77.10"),
		DNSPort:          53, HTTPSPort: 8081, ConnectPort: 8080, SSHPort: 22, DaemonUID: 900,
		Resolvers:     []netip.AddrPort{netip.MustParseAddrPort("11.22.33.1:53"), netip.MustParseAddrPort("10.0.2.3:53")},
		AllowPrivate:  []netip.Prefix{netip.MustParsePrefix("10.1.2.3/16"), netip.MustParsePrefix("10.1.7.0/24")},
		HostAddresses: []netip.Prefix{netip.MustParsePrefix("11.22.33.9/32")},
	}
}

func render(t *testing.T, p Params) string {
	t.Helper()
	text, err := Render(p)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestRenderMatchesGolden(t *testing.T) {
	path := filepath.Join("testdata", "rootcell.golden")
	got := render(t, params())
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("run go test ./internal/ruleset -update if this is meant:\n%s", diff)
	}
}

func TestRenderRefuses(t *testing.T) {
	change := func(f func(*Params)) Params {
		p := params()
		f(&p)
		return p
	}
	for name, test := range map[string]struct {
		p    Params
		want string
	}{
		"nothing at all":               {Params{}, "interface"},
		"a rule in the interface":      {change(func(p *Params) { p.PrivateInterface = `a" accept #` }), "interface"},
		"a line break in it":           {change(func(p *Params) { p.PrivateInterface = "a\nb" }), "interface"},
		"a define in it":               {change(func(p *Params) { p.PrivateInterface = "$ssh" }), "interface"},
		"an overlong interface":        {change(func(p *Params) { p.PrivateInterface = strings.Repeat("a", 16) }), "interface"},
		"an IPv6 agent":                {change(func(p *Params) { p.Agent = netip.MustParseAddr("fd00::1") }), "the agent's address"},
		"an embedded IPv4 agent":       {change(func(p *Params) { p.Agent = netip.MustParseAddr("::ffff:10.0.0.1") }), "the agent's address"},
		"a zone":                       {change(func(p *Params) { p.Firewall = netip.MustParseAddr("fe80::1%a;accept") }), "the firewall's address"},
		"the zero address":             {change(func(p *Params) { p.Firewall = netip.Addr{} }), "the firewall's address"},
		"one address for both":         {change(func(p *Params) { p.Agent = p.Firewall }), "both"},
		"port 0":                       {change(func(p *Params) { p.SSHPort = 0 }), "ports"},
		"one port for two":             {change(func(p *Params) { p.HTTPSPort = p.ConnectPort }), "differ"},
		"an IPv6 resolver":             {change(func(p *Params) { p.Resolvers = append(p.Resolvers, netip.MustParseAddrPort("[::1]:53")) }), "resolver"},
		"a resolver without a port":    {change(func(p *Params) { p.Resolvers = []netip.AddrPort{netip.MustParseAddrPort("1.1.1.1:0")} }), "resolver"},
		"an IPv6 private range":        {change(func(p *Params) { p.AllowPrivate = []netip.Prefix{netip.MustParsePrefix("fc00::/7")} }), "range"},
		"an invalid range of the host": {change(func(p *Params) { p.HostAddresses = []netip.Prefix{{}} }), "range"},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := Render(test.p)
			if err == nil || !strings.Contains(err.Error(), test.want) || text != "" {
				t.Errorf("Render = %q, %v, want no text and an error with %q", text, err, test.want)
			}
		})
	}
}

// TestSpecialRangesAgree holds the two lists of special addresses, Go's and the
// ruleset's, against each other: at the first address of every /24, and around
// every border that the ruleset names.
func TestSpecialRangesAgree(t *testing.T) {
	match := regexp.MustCompile(`(?s)set special \{.*?elements = \{(.*?)\}`).FindStringSubmatch(rules)
	if match == nil {
		t.Fatal("rootcell.nft has no set of special addresses")
	}
	var set []netip.Prefix
	for item := range strings.SplitSeq(match[1], ",") {
		item = strings.TrimSpace(item)
		if !strings.Contains(item, "/") {
			item += "/32"
		}
		prefix, err := netip.ParsePrefix(item)
		if err != nil {
			t.Fatal(err)
		}
		set = append(set, prefix)
	}
	inSet := func(a netip.Addr) bool {
		for _, prefix := range set {
			if prefix.Contains(a) {
				return true
			}
		}
		return false
	}
	compare := func(a netip.Addr) {
		if !a.IsValid() {
			return
		}
		if class, special := specialaddr.Check(a); special != inSet(a) {
			t.Errorf("%s: specialaddr says %v (%s), rootcell.nft %v", a, special, class, inSet(a))
		}
	}
	for n := range uint32(1 << 24) {
		compare(netip.AddrFrom4([4]byte{byte(n >> 16), byte(n >> 8), byte(n)}))
	}
	for _, prefix := range set {
		compare(prefix.Addr().Prev())
		compare(prefix.Addr())
		compare(prefix.Addr().Next())
	}
}

// nft runs nft in a network namespace of its own.
func nft(t *testing.T, script string) (string, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, tool := range []string{"nft", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (apt-get install nftables util-linux)", tool)
		}
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--net", "sh", "-ec", script)
	path := filepath.Join(t.TempDir(), "rules.nft")
	if err := os.WriteFile(path, []byte(render(t, params())), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "RULES="+path)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestNftAcceptsTheRuleset(t *testing.T) {
	if out, err := nft(t, `nft --check --file "$RULES"`); err != nil {
		t.Errorf("nft --check: %v\n%s", err, out)
	}
}

func TestLoadingReplacesTheTable(t *testing.T) {
	out, err := nft(t, `
		nft add table inet other
		nft --file "$RULES"; first=$(nft list table inet rootcell)
		nft add rule inet rootcell forward accept
		nft --file "$RULES"; second=$(nft list table inet rootcell)
		[ "$first" = "$second" ] || echo "the second load differs"
		nft list table inet other >/dev/null`)
	if err != nil || out != "" {
		t.Errorf("loading twice: %v\n%s", err, out)
	}
}

func TestABrokenLoadChangesNothing(t *testing.T) {
	out, err := nft(t, `
		nft --file "$RULES"; first=$(nft list ruleset)
		echo "add element inet rootcell resolvers { nonsense }" >>"$RULES"
		nft --file "$RULES" 2>/dev/null && echo "the broken file was loaded"
		[ "$first" = "$(nft list ruleset)" ] || echo "the ruleset changed"`)
	if err != nil || out != "" {
		t.Errorf("loading a broken file: %v\n%s", err, out)
	}
}
