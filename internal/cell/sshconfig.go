package cell

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/sshx"
)

// SSHConfig is an OpenSSH configuration with aliases for both machines. It is
// also kept in the instance's directory, together with the known hosts it
// refers to; path is where. executable is this program, which ssh runs to reach
// the firewall, so that the configuration outlives changes of ports.
func (c *Cell) SSHConfig(ctx context.Context, executable string) (text, path string, err error) {
	lock, err := c.lockExisting(ctx)
	if err != nil {
		return "", "", err
	}
	defer lock.Release()
	cfg, state, err := c.prepare(ctx)
	if err != nil {
		return "", "", err
	}
	ks, err := c.ensureKeys()
	if err != nil {
		return "", "", err
	}
	knownHosts := c.path("ssh", "known_hosts")
	text, err = sshx.OpenSSHConfig(sshx.ConfigOptions{
		Instance:       c.Name,
		IdentityFile:   ks.control.path,
		KnownHostsFile: knownHosts,
		FirewallUser:   firewallUser,
		AgentUser:      cfg.Guest.User,
		FirewallCommand: []string{
			"/usr/bin/env", "ROOTCELL_STATE_DIR=" + c.Root.Dir, executable, "--instance", c.Name, "__dial",
		},
		AgentAddr: netip.AddrPortFrom(state.AgentIP, 22),
	})
	if err != nil {
		return "", "", err
	}
	pinned := sshx.KnownHosts(c.Name, ks.firewall.signer.PublicKey(), ks.agent.signer.PublicKey())
	if err := writeFile(knownHosts, []byte(pinned), 0o600); err != nil {
		return "", "", err
	}
	path = c.path("ssh", "config")
	return text, path, writeFile(path, []byte(text), 0o600)
}

// Dial is a connection to the SSH server of a running firewall, for programs
// that speak SSH themselves.
func (c *Cell) Dial(ctx context.Context) (net.Conn, error) {
	_, p, err := c.need(ctx, provider.RoleFirewall)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, firewallBoot, errors.New("the firewall did not answer in time"))
	defer cancel()
	return p.DialFirewall(ctx, c.id())
}
