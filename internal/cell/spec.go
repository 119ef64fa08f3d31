package cell

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/rootcell-ai/rootcell/internal/config"
	"github.com/rootcell-ai/rootcell/internal/guestcfg"
	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/specialaddr"
)

// The firewall's uplink in QEMU's user-mode network, which gives every guest
// the same addresses (QEMU manual, "Network emulation").
var (
	uplinkAddress  = netip.MustParsePrefix("10.0.2.15/24")
	uplinkGateway  = netip.MustParseAddr("10.0.2.2")
	uplinkResolver = netip.MustParseAddrPort("10.0.2.3:53")
)

// spec is the desired state of the instance's machines. It is a function of
// the instance's files, the images and the host's public addresses alone, so
// that computing it twice gives the same.
func (c *Cell) spec(cfg config.Config, s State, set ImageSet) (provider.Spec, error) {
	firewall, err := c.firewallGuest(cfg, s)
	if err != nil {
		return provider.Spec{}, err
	}
	agent, err := c.agentGuest(cfg, s)
	if err != nil {
		return provider.Spec{}, err
	}
	spec := provider.Spec{
		ID:    c.id(),
		Arch:  guestArch(cfg, c.GOARCH),
		Accel: cfg.QEMU.Accel,
		Firewall: provider.Machine{
			Name: MachineName(provider.RoleFirewall, c.Name),
			CPUs: cfg.Firewall.CPUs, MemoryBytes: cfg.Firewall.Memory, DiskBytes: cfg.Firewall.Disk,
			Kernel: set.Kernel, Initrd: set.FirewallInitrd,
		},
		Agent: provider.Machine{
			Name: MachineName(provider.RoleAgent, c.Name),
			CPUs: cfg.Agent.CPUs, MemoryBytes: cfg.Agent.Memory, DiskBytes: cfg.Agent.Disk,
			Kernel: set.Kernel, Initrd: set.AgentInitrd, Image: set.AgentRoot,
		},
	}
	if spec.Firewall.Config, err = guestcfg.Encode(firewall); err != nil {
		return provider.Spec{}, err
	}
	if spec.Agent.Config, err = guestcfg.Encode(agent); err != nil {
		return provider.Spec{}, err
	}
	// The allowlists reach a running firewall by push, so a change of them
	// alone is no reason to restart it.
	static := firewall
	part := *firewall.Firewall
	part.Policy = nil
	static.Firewall = &part
	text, err := guestcfg.Encode(static)
	if err != nil {
		return provider.Spec{}, err
	}
	spec.Firewall.ConfigHash = digest(text)
	return spec, nil
}

func (c *Cell) firewallGuest(cfg config.Config, s State) (guestcfg.Config, error) {
	ks, err := c.ensureKeys()
	if err != nil {
		return guestcfg.Config{}, err
	}
	cert, key, err := c.readCA()
	if err != nil {
		return guestcfg.Config{}, err
	}
	lists, err := c.lists()
	if err != nil {
		return guestcfg.Config{}, err
	}
	resolvers := cfg.Policy.Resolvers
	if len(resolvers) == 0 {
		resolvers = []netip.AddrPort{uplinkResolver}
	}
	toml, err := renderFirewall(c.Name, cfg, s, resolvers, publicAddresses())
	if err != nil {
		return guestcfg.Config{}, err
	}
	var roots []byte
	if path := cfg.Policy.UpstreamRoots; path != "" {
		if roots, err = os.ReadFile(path); err != nil {
			return guestcfg.Config{}, fmt.Errorf("reading policy.upstream_roots: %w; correct the path in rootcell.toml", err)
		}
	}
	return guestcfg.Config{
		Schema: guestcfg.Schema, Role: guestcfg.RoleFirewall, Instance: c.Name,
		Hostname: MachineName(provider.RoleFirewall, c.Name),
		Network: guestcfg.Network{
			Cell: guestcfg.Interface{MAC: c.mac(provider.RoleFirewall, provider.NICCell), Address: prefixed(s.FirewallIP)},
			Uplink: &guestcfg.Interface{
				MAC: c.mac(provider.RoleFirewall, provider.NICUplink), Address: uplinkAddress.String(), Gateway: uplinkGateway.String(),
			},
			PeerAddress: s.AgentIP.String(),
			PeerMAC:     c.mac(provider.RoleAgent, provider.NICCell),
		},
		SSH:      guestcfg.SSH{HostKey: guestcfg.Secret(ks.firewall.pem), AuthorizedKeys: []string{ks.control.authorized()}},
		Firewall: &guestcfg.Firewall{TOML: toml, CACert: string(cert), CAKey: guestcfg.Secret(key), Policy: lists, UpstreamRoots: string(roots)},
	}, nil
}

// agentGuest holds nothing secret but the agent's own host key.
func (c *Cell) agentGuest(cfg config.Config, s State) (guestcfg.Config, error) {
	ks, err := c.ensureKeys()
	if err != nil {
		return guestcfg.Config{}, err
	}
	cert, _, err := c.readCA()
	if err != nil {
		return guestcfg.Config{}, err
	}
	return guestcfg.Config{
		Schema: guestcfg.Schema, Role: guestcfg.RoleAgent, Instance: c.Name,
		Hostname: MachineName(provider.RoleAgent, c.Name),
		Network: guestcfg.Network{
			Cell: guestcfg.Interface{
				MAC: c.mac(provider.RoleAgent, provider.NICCell), Address: prefixed(s.AgentIP), Gateway: s.FirewallIP.String(),
			},
			PeerAddress: s.FirewallIP.String(),
			PeerMAC:     c.mac(provider.RoleFirewall, provider.NICCell),
		},
		SSH: guestcfg.SSH{HostKey: guestcfg.Secret(ks.agent.pem), AuthorizedKeys: []string{ks.control.authorized()}},
		Agent: &guestcfg.Agent{
			User: cfg.Guest.User, CACert: string(cert),
			ConnectAddress: netip.AddrPortFrom(s.FirewallIP, connectPort).String(),
		},
	}, nil
}

func (c *Cell) mac(role provider.Role, nic provider.NIC) string {
	return provider.MAC(c.Name, role, nic).String()
}

// publicAddresses are those of the host's addresses that the firewall's ruleset
// does not refuse anyway because of their range.
func publicAddresses() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var public []netip.Addr
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil || !prefix.Addr().Is4() {
			continue
		}
		if _, special := specialaddr.Check(prefix.Addr()); !special {
			public = append(public, prefix.Addr())
		}
	}
	slices.SortFunc(public, netip.Addr.Compare)
	return slices.Compact(public)
}

// guestArch is the guests' architecture as Go spells it.
func guestArch(cfg config.Config, goarch string) string {
	if cfg.ResolvedSystem(goarch) == "aarch64-linux" {
		return "arm64"
	}
	return "amd64"
}

// digestSpec identifies what the machines were brought to. Keys and lists are
// in it by their hashes only.
func digestSpec(spec provider.Spec) (string, error) {
	for _, m := range []*provider.Machine{&spec.Agent, &spec.Firewall} {
		m.ConfigHash, m.Config = m.EffectiveConfigHash(), nil
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return "", fmt.Errorf("encoding the specification of the machines: %w", err)
	}
	return digest(text), nil
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
