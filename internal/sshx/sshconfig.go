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
	via, err := proxyCommand(o)
	if err != nil {
		return "", err
	}
	files := append([]string{"IdentityFile " + identity, "UserKnownHostsFile " + knownHosts}, commonConfig()...)
	firewall := append([]string{"User " + o.FirewallUser, "HostKeyAlias " + FirewallAlias(o.Instance)}, files...)
	if o.FirewallAddr.IsValid() {
		firewall = append(address(o.FirewallAddr), firewall...)
	} else {
		firewall = append([]string{"ProxyCommand " + via}, firewall...)
	}
	agent := append(address(o.AgentAddr), "User "+o.AgentUser, "HostKeyAlias "+AgentAlias(o.Instance), "ProxyCommand "+jump(o.Instance, firewall))
	agent = append(agent, files...)

	var b strings.Builder
	b.WriteString("# Written by rootcell; changes are lost.\n")
	fmt.Fprintf(&b, "\nHost rootcell-firewall %s\n  %s\n", FirewallAlias(o.Instance), strings.Join(firewall, "\n  "))
	fmt.Fprintf(&b, "\nHost rootcell-agent %s\n  %s\n", AgentAlias(o.Instance), strings.Join(agent, "\n  "))
	return b.String(), nil
}

func address(addr netip.AddrPort) []string {
	return []string{"HostName " + addr.Addr().String(), fmt.Sprintf("Port %d", addr.Port())}
}

// jump is the command that connects to the agent through the firewall. It
// says what ProxyJump would, which hands the path behind -F to the shell without
// quotes and so fails where a directory's name has a space (OpenSSH 9.2).
func jump(instance string, firewall []string) string {
	argv := []string{"ssh", "-F", "/dev/null"}
	for _, option := range firewall {
		argv = append(argv, "-o", option)
	}
	return strings.ReplaceAll(Quote(argv...), "%", "%%") + " -W %h:%p " + FirewallAlias(instance)
}

// commonConfig is what both hosts need besides. Invariant: a guest gets no
// agent and no display of the host, and only the pinned key passes for it
// (TestConfigPinsAndForwardsNothing).
func commonConfig() []string {
	return []string{
		"IdentitiesOnly yes",
		"IdentityAgent none",
		"GlobalKnownHostsFile /dev/null",
		"StrictHostKeyChecking yes",
		"UpdateHostKeys no",
		"CheckHostIP no",
		"PreferredAuthentications publickey",
		"BatchMode yes",
		"ForwardAgent no",
		"ForwardX11 no",
		"PermitLocalCommand no",
		"ConnectTimeout 30",
		"ServerAliveInterval 15",
		"ServerAliveCountMax 4",
	}
}

// proxyCommand is the value of that option for the firewall; empty when it has
// an address.
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
	// %% is a percent sign.
	return strings.ReplaceAll(line, "%", "%%"), nil
}

// quotePath writes a path as ssh_config(5) reads it. What OpenSSH cannot read
// back in every version is refused.
func quotePath(path string) (string, error) {
	switch {
	case !strings.HasPrefix(path, "/"):
		return "", fmt.Errorf("writing SSH configuration: the path %q is not absolute", path)
	case hasControl(path), strings.ContainsAny(path, `"\%`), strings.Contains(path, "${"):
		return "", fmt.Errorf("writing SSH configuration: OpenSSH cannot read the path %s; move the state with ROOTCELL_STATE_DIR to one without control characters, quotes, backslashes, %% and ${", strconv.Quote(path))
	}
	return `"` + path + `"`, nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
