package config

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// relations checks what no single value shows, on the merged configuration.
// The blame goes to the place of the value that can be mended.
func (l *loader) relations() {
	l.pinnedPair()
	l.qemuUplink()
	l.secretSources()
}

func (l *loader) blame(path string, f *fault) {
	origin := l.config.Origin(path)
	l.problems = append(l.problems, Problem{File: origin.Name, Line: origin.Line, Column: origin.Column, What: f.what, Hint: f.hint})
}

func (l *loader) pinnedPair() {
	firewall, agent := l.config.Network.FirewallIP, l.config.Network.AgentIP
	const hint = "write both, or neither to take a free subnet from the pool"
	switch {
	case !firewall.IsValid() && !agent.IsValid():
	case !agent.IsValid():
		l.blame("network.firewall_ip", faultf(hint, "network.firewall_ip is set and network.agent_ip is not"))
	case !firewall.IsValid():
		l.blame("network.agent_ip", faultf(hint, "network.agent_ip is set and network.firewall_ip is not"))
	case firewall == agent:
		l.blame("network.agent_ip", faultf("write two addresses of one /24", "firewall and agent have the same address %s", agent))
	case subnet(firewall) != subnet(agent):
		l.blame("network.agent_ip", faultf("write two addresses of one /24", "%s is not in %s, where the firewall %s is", agent, subnet(firewall), firewall))
	}
}

func subnet(ip netip.Addr) netip.Prefix { return netip.PrefixFrom(ip, 24).Masked() }

// qemuUplink keeps the cell's subnet apart from the network that QEMU's
// user-mode NIC gives to the firewall.
func (l *loader) qemuUplink() {
	n := l.config.Network
	uplink := netip.MustParsePrefix("10.0.2.0/24")
	const what = "10.0.2.0/24 is the network of the firewall's uplink in the qemu provider"
	if n.FirewallIP.IsValid() && uplink.Contains(n.FirewallIP) {
		l.blame("network.firewall_ip", faultf("take another private /24", what))
	}
	if first := uplink.Addr(); !first.Less(n.PoolFirst) && !n.PoolLast.Less(first) {
		l.blame("network.pool", faultf("let the pool begin behind it", what))
	}
}

func (l *loader) secretSources() {
	for _, name := range slices.Sorted(maps.Keys(l.config.Secrets)) {
		id := l.config.Secrets[name].Provider
		if _, ok := l.config.SecretProvider(id); ok {
			continue
		}
		hint := "configured are " + strings.Join(l.providerIDs(), ", ")
		if id == kindCommand {
			hint = `a command needs a table [secret_providers.NAME] with kind = "command"`
		}
		l.blame(join("secrets", name), faultf(hint, "secret %s wants provider %q, which is not configured", name, id))
	}
}

func (l *loader) providerIDs() []string {
	var ids []string
	for _, kind := range kinds {
		if _, ok := l.config.SecretProvider(kind); ok {
			ids = append(ids, kind)
		}
	}
	return append(ids, slices.Sorted(maps.Keys(l.config.SecretProviders))...)
}
