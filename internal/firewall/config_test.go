package firewall

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const goodConfig = `schema = 1
instance = "default"
[listen]
interface = "cell"
dns = "192.168.100.10:53"
https = "192.168.100.10:8081"
connect = "192.168.100.10:8080"
control = "/run/rootcell/control.sock"
agent = "192.168.100.11"
[policy]
dir = "policy"
deny_style = "reset"
allow_private = ["10.1.2.3/16", "10.9.9.9"]
[ca]
cert = "ca.pem"
key = "/keys/ca.key"
[upstream]
resolvers = ["1.1.1.1:53", "9.9.9.9"]
host_addresses = ["203.0.113.7"]
[audit]
path = "audit.jsonl"
max_bytes = 1000000
[limits]
ssh_idle = "90m"
ssh_tunnels = 7
dns_budget_chars = 4096
dns_tcp_idle = "3s"
`

func TestParseReadsEverything(t *testing.T) {
	got, problems := Parse("/etc/rootcell/firewall.toml", []byte(goodConfig))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := Config{
		Path: "/etc/rootcell/firewall.toml", Instance: "default",
		Listen: Listen{
			Interface: "cell", DNS: netip.MustParseAddrPort("192.168.100.10:53"), HTTPS: netip.MustParseAddrPort("192.168.100.10:8081"),
			Connect: netip.MustParseAddrPort("192.168.100.10:8080"), Control: "/run/rootcell/control.sock", Agent: netip.MustParseAddr("192.168.100.11"),
		},
		Policy: PolicyConfig{Dir: "/etc/rootcell/policy", Reset: true,
			AllowPrivate: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.9.9.9/32")}},
		CA: CAFiles{Cert: "/etc/rootcell/ca.pem", Key: "/keys/ca.key"},
		Upstream: UpstreamConfig{Resolvers: []netip.AddrPort{netip.MustParseAddrPort("1.1.1.1:53"), netip.MustParseAddrPort("9.9.9.9:53")},
			HostAddresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.7/32")}},
		Audit:   AuditConfig{Path: "/etc/rootcell/audit.jsonl", MaxBytes: 1_000_000},
		Ruleset: RulesetConfig{DaemonUID: 900, SSHPort: 22},
		Limits: Limits{MemoryBytes: 128 << 20, HTTPSConnections: 2048, SSHTunnels: 7, DNSQueries: 512, DNSConnections: 64,
			DNSTCPIdle: 3 * time.Second, DNSNameChars: 120, DNSBudgetChars: 4096, DNSBudgetPerHour: 14400, SSHIdle: 90 * time.Minute},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	text, err := got.NftRuleset()
	if err != nil || !strings.Contains(text, "define agent_addr = 192.168.100.11\n") ||
		!strings.Contains(text, "add element inet rootcell host_addresses { 203.0.113.7/32 }") {
		t.Errorf("NftRuleset = %v\n%s", err, text)
	}
}

func TestParseNamesEveryProblemWithItsPlace(t *testing.T) {
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(goodConfig) }
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"broken syntax":            {"schema = 1\ninstance = \n", []string{"f.toml:2:12: "}},
		"an empty file":            {"", []string{"f.toml:1:1: schema: it is missing", "f.toml:1:1: instance: it is missing", "f.toml:1:1: ca.key: it is missing"}},
		"another schema":           {replace("schema = 1", "schema = 2"), []string{"f.toml:1:1: schema: 2 is not"}},
		"a text for the schema":    {replace("schema = 1", `schema = "1"`), []string{"f.toml:1:1: schema: 1 is not"}},
		"an unknown key":           {replace("ssh_idle", "ssh_idel"), []string{`f.toml:24:1: limits.ssh_idel: unknown key; perhaps "limits.ssh_idle" is meant`}},
		"an unknown table":         {goodConfig + "[spy]\nenabled = true\n", []string{"f.toml:29:1: spy.enabled: unknown key"}},
		"an unknown table inline":  {replace("[policy]", "[policy]\nx = { y = 1 }"), []string{"f.toml:11:7: policy.x.y: unknown key"}},
		"an instance with a slash": {replace(`"default"`, `"../x"`), []string{"f.toml:2:1: instance:"}},
		"an address without port":  {replace("192.168.100.10:53", "192.168.100.10"), []string{"f.toml:5:1: listen.dns:"}},
		"an IPv6 address":          {replace("192.168.100.10:53", "[::1]:53"), []string{"f.toml:5:1: listen.dns:"}},
		"two addresses":            {replace("192.168.100.10:8081", "192.168.100.12:8081"), []string{"f.toml:6:1: listen.https: its address differs"}},
		"one port twice":           {replace("192.168.100.10:8081", "192.168.100.10:8080"), []string{"must differ"}},
		"a rule as an interface":   {replace(`"cell"`, `'a" accept'`), []string{"f.toml:4:1: listen.interface:"}},
		"an unknown style":         {replace(`"reset"`, `"drop"`), []string{"f.toml:12:1: policy.deny_style: unknown style"}},
		"a range that is none":     {replace("10.9.9.9", "10.9.9"), []string{"f.toml:13:33: policy.allow_private[1]:"}},
		"a number as a resolver":   {replace(`"9.9.9.9"`, "9"), []string{"f.toml:18:28: upstream.resolvers[1]:"}},
		"no resolver":              {replace(`resolvers = ["1.1.1.1:53", "9.9.9.9"]`, "resolvers = []"), []string{"f.toml:18:1: upstream.resolvers: no resolver"}},
		"an endless idle time":     {replace("90m", "90000h"), []string{"f.toml:24:1: limits.ssh_idle:"}},
		"a log without room":       {replace("1000000", "5"), []string{"f.toml:22:1: audit.max_bytes:"}},
		"several at once": {replace(`"cell"`, `""`, "192.168.100.11", "agent", "ssh_tunnels = 7", "ssh_tunnels = -1"),
			[]string{"f.toml:4:1: listen.interface:", "f.toml:9:1: listen.agent:", "f.toml:25:1: limits.ssh_tunnels:"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := Parse("f.toml", []byte(test.text))
			text := problems.Error()
			at := 0
			for _, want := range test.want {
				i := strings.Index(text[at:], want)
				if i < 0 {
					t.Fatalf("the problems do not have %q, or not in this order:\n%s", want, text)
				}
				at += i
			}
		})
	}
}

func TestLoadRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "none.toml"), dir} {
		if _, problems := Load(path); problems.Err() == nil {
			t.Errorf("Load(%q) found nothing wrong", path)
		}
	}
}

func TestCheckFindsTheProblemsOfAllFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "policy"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("firewall.toml", strings.ReplaceAll(goodConfig, "/keys/", "")+"[upstream.x]\n")
	write("policy/allowed-dns.txt", "good.test\n")
	write("policy/allowed-https.txt", "good.test\nbad_name.test\nother.test GET /(?=x)\n")
	write("ca.pem", "no certificate")
	write("ca.key", "no key")
	text := Check(filepath.Join(dir, "firewall.toml")).Error()
	for _, want := range []string{
		filepath.Join(dir, "policy/allowed-https.txt") + ":2:",
		filepath.Join(dir, "policy/allowed-https.txt") + ":3:",
		filepath.Join(dir, "policy/allowed-ssh.txt") + ":1:1: ",
		filepath.Join(dir, "ca.pem") + ":1:1: ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the problems do not have %q:\n%s", want, text)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(goodConfig)
	f.Add("schema = 1\n[listen]\ndns.x = [[1], { a = 2 }]\n")
	f.Add("[[listen]]\ndns = 1979-05-27T07:32:00Z\n")
	f.Fuzz(func(t *testing.T, text string) {
		config, problems := Parse("f.toml", []byte(text))
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.Line > strings.Count(text, "\n")+1 {
				t.Fatalf("a problem without a place: %v", p)
			}
		}
		if len(problems) == 0 {
			if _, err := config.NftRuleset(); err != nil {
				t.Fatalf("an accepted configuration has no ruleset: %v", err)
			}
		}
	})
}
