package cell

import (
	"fmt"
	"net/netip"

	"github.com/pelletier/go-toml/v2"

	"github.com/rootcell-ai/rootcell/internal/config"
	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

// Ports of the daemon on the private link.
const (
	dnsPort     = 53
	httpsPort   = 8081
	connectPort = 8080
)

const auditMaxBytes = 64 << 20

// firewallTOML is the daemon's configuration as the host writes it. The reader
// is package firewall, which the host's program does not link.
type firewallTOML struct {
	Schema   int          `toml:"schema"`
	Instance string       `toml:"instance"`
	Listen   listenTOML   `toml:"listen"`
	Policy   policyTOML   `toml:"policy"`
	CA       caTOML       `toml:"ca"`
	Upstream upstreamTOML `toml:"upstream"`
	Audit    auditTOML    `toml:"audit"`
}

type listenTOML struct {
	Interface string `toml:"interface"`
	DNS       string `toml:"dns"`
	HTTPS     string `toml:"https"`
	Connect   string `toml:"connect"`
	Control   string `toml:"control"`
	Agent     string `toml:"agent"`
}

type policyTOML struct {
	Dir          string   `toml:"dir"`
	DenyStyle    string   `toml:"deny_style"`
	AllowPrivate []string `toml:"allow_private"`
}

type caTOML struct {
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
}

type upstreamTOML struct {
	Resolvers     []string `toml:"resolvers"`
	Roots         string   `toml:"roots,omitempty"`
	HostAddresses []string `toml:"host_addresses"`
}

type auditTOML struct {
	Path     string `toml:"path"`
	MaxBytes int64  `toml:"max_bytes"`
}

// renderFirewall is firewall.toml for an instance. own are the host's public
// addresses, which the firewall must not reach.
func renderFirewall(name string, cfg config.Config, s State, resolvers []netip.AddrPort, own []netip.Addr) (string, error) {
	at := func(port uint16) string { return netip.AddrPortFrom(s.FirewallIP, port).String() }
	doc := firewallTOML{
		Schema:   1,
		Instance: name,
		Listen: listenTOML{
			Interface: guestcfg.InterfaceCell,
			DNS:       at(dnsPort), HTTPS: at(httpsPort), Connect: at(connectPort),
			Control: guestcfg.FirewallControl,
			Agent:   s.AgentIP.String(),
		},
		Policy:   policyTOML{Dir: guestcfg.FirewallPolicyDir, DenyStyle: cfg.Policy.DenyStyle, AllowPrivate: texts(cfg.Policy.AllowPrivate)},
		CA:       caTOML{Cert: guestcfg.FirewallCACert, Key: guestcfg.FirewallCAKey},
		Upstream: upstreamTOML{Resolvers: texts(resolvers), HostAddresses: texts(own)},
		Audit:    auditTOML{Path: guestcfg.FirewallAuditPath, MaxBytes: auditMaxBytes},
	}
	if cfg.Policy.UpstreamRoots != "" {
		doc.Upstream.Roots = guestcfg.FirewallRoots
	}
	text, err := toml.Marshal(doc)
	if err != nil {
		return "", fmt.Errorf("rendering firewall.toml: %w", err)
	}
	return string(text), nil
}

func texts[T fmt.Stringer](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.String()
	}
	return out
}
