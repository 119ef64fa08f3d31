package sshx

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// ConfigOptions describe a cell to OpenSSH.
type ConfigOptions struct {
	Instance string // makes the aliases unique among instances
	// IdentityFile and KnownHostsFile are absolute paths. KnownHosts returns
	// what the second one must hold.
	IdentityFile   string
	KnownHostsFile string
	FirewallUser   string
	AgentUser      string
	// FirewallAddr is where the firewall's SSH answers. When it is not valid,
	// FirewallCommand is a program with arguments whose standard input and
	// output are a connection to it.
	FirewallAddr    netip.AddrPort
	FirewallCommand []string
	AgentAddr       netip.AddrPort // as the firewall sees it
}

// FirewallAlias and AgentAlias are the names for one instance's machines that
// stay unique when several configurations are included in one.
func FirewallAlias(instance string) string { return "rootcell-firewall-" + instance }

// AgentAlias is the agent's; see FirewallAlias.
func AgentAlias(instance string) string { return "rootcell-agent-" + instance }

// KnownHosts is the known_hosts text that pins both machines' keys. It goes by
// alias, so that new ports and addresses do not matter.
func KnownHosts(instance string, firewall, agent ssh.PublicKey) string {
	return FirewallAlias(instance) + " " + PublicLine(firewall, "") + "\n" +
		AgentAlias(instance) + " " + PublicLine(agent, "") + "\n"
}

// OpenSSHConfig is the ssh_config text with the aliases rootcell-firewall and
// rootcell-agent, and for this instance alone rootcell-firewall-INSTANCE and
// rootcell-agent-INSTANCE. It works with `ssh -F` and included in ~/.ssh/config.
func OpenSSHConfig(o ConfigOptions) (string, error) {
	identity, err := quotePath(o.IdentityFile)
	if err != nil {
		return "", err
	}
	knownHosts, err := quotePath(o.KnownHostsFile)
	if err != nil {
		return "", err
	}
	for _, word := range []string{o.Instance, o.FirewallUser, o.AgentUser} {
		if word == "" || quoteWord(word) != word {
			return "", fmt.Errorf("writing SSH configuration: %q cannot stand in it", word)
		}
	}
	var b strings.Builder
	host := func(alias, generic string, addr netip.AddrPort, user, via string) {
		fmt.Fprintf(&b, "Host %s %s\n", generic, alias)
		if addr.IsValid() {
			fmt.Fprintf(&b, "  HostName %s\n  Port %d\n", addr.Addr(), addr.Port())
		}
		if via != "" {
			fmt.Fprintf(&b, "  %s\n", via)
		}
		for _, line := range []string{
			"User " + user,
			"HostKeyAlias " + alias,
			"IdentityFile " + identity,
			"UserKnownHostsFile " + knownHosts,
		} {
			fmt.Fprintf(&b, "  %s\n", line)
		}
		b.WriteString(commonConfig)
	}
	via, err := proxyCommand(o)
	if err != nil {
		return "", err
	}
	b.WriteString("# Written by rootcell; changes are lost.\n\n")
	host(FirewallAlias(o.Instance), "rootcell-firewall", o.FirewallAddr, o.FirewallUser, via)
	b.WriteString("\n")
	host(AgentAlias(o.Instance), "rootcell-agent", o.AgentAddr, o.AgentUser, "ProxyJump "+FirewallAlias(o.Instance))
	return b.String(), nil
}

// commonConfig is what both hosts need besides. Invariant: a guest gets no
// agent and no display of the host, and only the pinned key passes for it
// (TestConfigPinsAndForwardsNothing).
const commonConfig = `  IdentitiesOnly yes
  IdentityAgent none
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  CheckHostIP no
  PreferredAuthentications publickey
  BatchMode yes
  ForwardAgent no
  ForwardX11 no
  PermitLocalCommand no
  ConnectTimeout 30
  ServerAliveInterval 15
  ServerAliveCountMax 4
`

func proxyCommand(o ConfigOptions) (string, error) {
	switch {
	case o.FirewallAddr.IsValid():
		return "", nil
	case len(o.FirewallCommand) == 0:
		return "", fmt.Errorf("writing SSH configuration: the firewall has neither address nor command")
	}
	line := Quote(o.FirewallCommand...)
	if hasControl(line) {
		return "", fmt.Errorf("writing SSH configuration: the command %q has a control character", line)
	}
	// exec saves the shell that OpenSSH starts for it; %% is a percent sign.
	return "ProxyCommand exec " + strings.ReplaceAll(line, "%", "%%"), nil
}

// quotePath writes a path as ssh_config(5) reads it. What OpenSSH cannot read
// back in every version is refused.
func quotePath(path string) (string, error) {
	switch {
	case !strings.HasPrefix(path, "/"):
		return "", fmt.Errorf("writing SSH configuration: the path %q is not absolute", path)
	case hasControl(path), strings.ContainsAny(path, `"\`), strings.Contains(path, "${"):
		return "", fmt.Errorf("writing SSH configuration: OpenSSH cannot read the path %s; move the state with ROOTCELL_STATE_DIR to one without control characters, quotes, backslashes and ${", strconv.Quote(path))
	}
	return `"` + strings.ReplaceAll(path, "%", "%%") + `"`, nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
