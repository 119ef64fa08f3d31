package firewall

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/rootcell-ai/rootcell/internal/policyfile"
	"github.com/rootcell-ai/rootcell/internal/ruleset"
)

// Config is firewall.toml. Relative paths in the file count from its directory.
type Config struct {
	Path     string
	Instance string
	Listen   Listen
	Policy   PolicyConfig
	CA       CAFiles
	Upstream UpstreamConfig
	Audit    AuditConfig
	Ruleset  RulesetConfig
	Limits   Limits
}

// Listen says where the daemon listens. All addresses are IPv4.
type Listen struct {
	Interface string // of the link to the agent; only the ruleset uses it
	DNS       netip.AddrPort
	HTTPS     netip.AddrPort
	Connect   netip.AddrPort
	Control   string // path of the Unix socket
	Agent     netip.Addr
}

// PolicyConfig says where the lists are.
type PolicyConfig struct {
	Dir          string
	Reset        bool // deny_style = "reset"
	AllowPrivate []netip.Prefix
}

// CAFiles are paths of PEM files.
type CAFiles struct{ Cert, Key string }

// UpstreamConfig says how the outside is reached.
type UpstreamConfig struct {
	Resolvers     []netip.AddrPort
	Roots         string         // path of a PEM bundle; empty: the system's
	HostAddresses []netip.Prefix // of the machine hosting the cell, never reachable
}

// AuditConfig says where decisions are recorded.
type AuditConfig struct {
	Path     string
	MaxBytes int64 // of all files of the log together
}

// RulesetConfig is what only the ruleset needs.
type RulesetConfig struct {
	DaemonUID uint32
	SSHPort   uint16
}

// Limits bounds what the daemon holds.
type Limits struct {
	MemoryBytes      int64 // soft limit of the Go runtime
	HTTPSConnections int
	SSHTunnels       int
	DNSQueries       int // waiting for upstream
	DNSConnections   int // over TCP
	DNSTCPIdle       time.Duration
	DNSNameChars     int // of a name beyond the suffix that allows it
	// Of new names below one allowed suffix: characters at once, and characters that come back in an hour.
	DNSBudgetChars, DNSBudgetPerHour int
	SSHIdle                          time.Duration
}

// maxConfig bounds firewall.toml, in bytes.
const maxConfig = 1 << 20

// DefaultPath is where guests have firewall.toml.
const DefaultPath = "/run/rootcell/firewall.toml"

var instanceName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Load reads firewall.toml and returns every problem it has. The Config is only
// good when there are none. It opens none of the files that the configuration names.
func Load(path string) (Config, policyfile.Problems) {
	info, err := os.Stat(path)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxConfig) {
		err = fmt.Errorf("it is not a regular file of at most %d bytes", maxConfig)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return Config{}, policyfile.Problems{{File: path, Line: 1, Column: 1, What: fmt.Sprintf("reading the configuration: %v", err),
			Hint: "name firewall.toml with --config"}}
	}
	return Parse(path, text)
}

// Parse is Load for a text; path is what problems call it.
func Parse(path string, text []byte) (Config, policyfile.Problems) {
	d, ok := parseDocument(path, text)
	if !ok {
		return Config{}, d.problems
	}
	dir := filepath.Dir(path)
	c := Config{Path: path}
	if schema := d.number("schema", 0, 1, 1); schema == 0 && d.places["schema"] == 0 && d.values["schema"] == nil {
		d.bad("schema", "it is missing", "begin the file with schema = 1")
	}
	c.Instance = d.text1("instance", "", true)
	if c.Instance != "" && !instanceName.MatchString(c.Instance) {
		d.bad("instance", fmt.Sprintf("%q is not an instance name", c.Instance), "use a-z, 0-9 and -, beginning with a letter")
	}
	c.Listen = d.listen(dir)
	c.Policy = d.policy(dir)
	c.CA = CAFiles{Cert: d.path("ca.cert", dir, true), Key: d.path("ca.key", dir, true)}
	c.Upstream = UpstreamConfig{
		Resolvers:     d.resolvers("upstream.resolvers"),
		Roots:         d.path("upstream.roots", dir, false),
		HostAddresses: d.prefixes("upstream.host_addresses"),
	}
	c.Audit = AuditConfig{Path: d.path("audit.path", dir, true), MaxBytes: d.number("audit.max_bytes", 64<<20, 64<<10, 1<<40)}
	c.Ruleset = RulesetConfig{
		DaemonUID: uint32(d.number("ruleset.daemon_uid", 900, 0, 1<<32-2)),
		SSHPort:   uint16(d.number("ruleset.ssh_port", 22, 1, 65535)),
	}
	c.Limits = Limits{
		MemoryBytes:      d.number("limits.memory_bytes", 128<<20, 32<<20, 1<<40),
		HTTPSConnections: int(d.number("limits.https_connections", 2048, 1, 1<<20)),
		SSHTunnels:       int(d.number("limits.ssh_tunnels", 256, 1, 1<<16)),
		DNSQueries:       int(d.number("limits.dns_queries", 512, 1, 1<<16)),
		DNSConnections:   int(d.number("limits.dns_connections", 64, 1, 1<<16)),
		DNSTCPIdle:       d.duration("limits.dns_tcp_idle", 10*time.Second, time.Second, time.Hour),
		DNSNameChars:     int(d.number("limits.dns_name_chars", 120, 1, 253)),
		DNSBudgetChars:   int(d.number("limits.dns_budget_chars", 8192, 64, 1<<30)),
		DNSBudgetPerHour: int(d.number("limits.dns_budget_per_hour", 14400, 1, 1<<30)),
		SSHIdle:          d.duration("limits.ssh_idle", 2*time.Hour, time.Second, 7*24*time.Hour),
	}
	d.together(c)
	return c, d.finish()
}

func (d *document) listen(dir string) Listen {
	l := Listen{
		Interface: d.text1("listen.interface", "", true),
		DNS:       d.addrPort("listen.dns"),
		HTTPS:     d.addrPort("listen.https"),
		Connect:   d.addrPort("listen.connect"),
		Control:   d.path("listen.control", dir, true),
	}
	if len(l.Control) > 100 {
		d.bad("listen.control", "the path of a Unix socket may have 100 characters", "use a shorter one")
	}
	if text := d.text1("listen.agent", "", true); text != "" {
		addr, err := netip.ParseAddr(text)
		if err != nil || !addr.Is4() {
			d.bad("listen.agent", fmt.Sprintf("%q is not an IPv4 address", text), "")
		}
		l.Agent = addr
	}
	return l
}

func (d *document) policy(dir string) PolicyConfig {
	p := PolicyConfig{Dir: d.path("policy.dir", dir, true), AllowPrivate: d.prefixes("policy.allow_private")}
	switch style := d.text1("policy.deny_style", "explain", false); style {
	case "explain":
	case "reset":
		p.Reset = true
	default:
		d.bad("policy.deny_style", fmt.Sprintf("unknown style %q", style), `use "explain" or "reset"`)
	}
	return p
}

// together checks what concerns several values. Values that are wrong by
// themselves were reported already.
func (d *document) together(c Config) {
	if len(d.problems) > 0 {
		return
	}
	for key, addr := range map[string]netip.AddrPort{"listen.https": c.Listen.HTTPS, "listen.connect": c.Listen.Connect} {
		if addr.Addr() != c.Listen.DNS.Addr() {
			d.bad(key, "its address differs from that of listen.dns", "use the firewall's address on the link to the agent")
		}
	}
	if err := c.rulesetParams().Validate(); err != nil && len(d.problems) == 0 {
		d.bad("listen.interface", err.Error(), "")
	}
}

func (c Config) rulesetParams() ruleset.Params {
	return ruleset.Params{
		PrivateInterface: c.Listen.Interface,
		Agent:            c.Listen.Agent, Firewall: c.Listen.DNS.Addr(),
		DNSPort: c.Listen.DNS.Port(), HTTPSPort: c.Listen.HTTPS.Port(), ConnectPort: c.Listen.Connect.Port(),
		SSHPort: c.Ruleset.SSHPort, DaemonUID: c.Ruleset.DaemonUID,
		Resolvers: c.Upstream.Resolvers, AllowPrivate: c.Policy.AllowPrivate, HostAddresses: c.Upstream.HostAddresses,
	}
}

// NftRuleset returns the packet filter that belongs to the configuration, for
// `nft -f -`.
func (c Config) NftRuleset() (string, error) { return ruleset.Render(c.rulesetParams()) }
