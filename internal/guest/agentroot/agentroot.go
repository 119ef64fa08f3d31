// Package agentroot writes the host's configuration into the agent's root file
// system. It runs at every boot, before the distribution's init: each step
// brings its files to the wanted content and leaves them alone when they have
// it, so a changed document takes effect with the next start and an unchanged
// one costs reads only.
//
// Everything goes through os.Root. What is in the agent's disk was in the hands
// of the agent's root; a symbolic link there must not lead out of it.
package agentroot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

// Apply brings the file system below dir to what cfg, an agent's document,
// says. It does as many steps as it can; the error holds those it could not.
func Apply(dir string, cfg guestcfg.Config) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening the agent's root: %w", err)
	}
	defer root.Close()
	user, userErr := ensureUser(root, cfg.Agent.User)
	steps := []struct {
		what string
		do   func() error
	}{
		{"identity", func() error { return identity(root, cfg) }},
		{"user", func() error { return userErr }},
		{"ssh server", func() error { return sshServer(root, cfg) }},
		{"ssh client", func() error { return sshClient(root, cfg) }},
		{"certificate authority", func() error { return Trust(root, []byte(cfg.Agent.CACert)) }},
		{"environment", func() error { return environment(root, cfg.Agent.Env) }},
		{"guidance", func() error { return guidance(root, cfg, user) }},
	}
	var errs []error
	for _, step := range steps {
		if err := step.do(); err != nil {
			errs = append(errs, fmt.Errorf("configuring the agent's %s: %w", step.what, err))
		}
	}
	return errors.Join(errs...)
}

// identity is the machine's names and where it finds others.
func identity(root *os.Root, cfg guestcfg.Config) error {
	address, err := netip.ParsePrefix(cfg.Network.Cell.Address)
	if err != nil {
		return err
	}
	// The machine id is the same for every start of an instance, so that
	// systemd does not take a restart for a first boot.
	sum := sha256.Sum256([]byte("rootcell machine\x00" + cfg.Instance + "\x00" + cfg.Network.Cell.MAC))
	hosts := fmt.Sprintf("127.0.0.1\tlocalhost\n%s\t%s\n%s\tfirewall\n", address.Addr(), cfg.Hostname, cfg.Network.PeerAddress)
	return write(root,
		file{name: "etc/machine-id", text: hex.EncodeToString(sum[:16]) + "\n", mode: 0o444},
		file{name: "etc/hostname", text: cfg.Hostname + "\n"},
		file{name: "etc/hosts", text: hosts},
		file{name: "etc/resolv.conf", text: "nameserver " + cfg.Network.PeerAddress + "\noptions timeout:3 attempts:2\n"},
		file{name: "etc/sysctl.d/60-rootcell.conf", text: "# The link to the firewall is IPv4 only.\nnet.ipv6.conf.all.disable_ipv6 = 1\nnet.ipv6.conf.default.disable_ipv6 = 1\n"},
	)
}

// AuthorizedKeys is where the agent's SSH server looks for the host's key,
// besides the user's own file, which stays the user's.
const AuthorizedKeys = "etc/ssh/authorized_keys.d/"

func sshServer(root *os.Root, cfg guestcfg.Config) error {
	key, err := ssh.ParsePrivateKey([]byte(cfg.SSH.HostKey.Reveal()))
	if err != nil {
		return fmt.Errorf("parsing the host key: %w", err)
	}
	return write(root,
		file{name: "etc/ssh/ssh_host_ed25519_key", text: cfg.SSH.HostKey.Reveal(), mode: 0o600},
		file{name: "etc/ssh/ssh_host_ed25519_key.pub", text: string(ssh.MarshalAuthorizedKey(key.PublicKey()))},
		file{name: AuthorizedKeys + cfg.Agent.User, text: strings.Join(cfg.SSH.AuthorizedKeys, "\n") + "\n"},
	)
}

func sshClient(root *os.Root, cfg guestcfg.Config) error {
	config := `# Written at every boot by rootcell. SSH leaves through the firewall's proxy,
# which lets the hosts of allowed-ssh.txt through and explains every refusal.
Host * !localhost !127.* !::1
    ProxyCommand /usr/local/bin/rootcell-guest connect --proxy ` + cfg.Agent.ConnectAddress + ` %h %p
    ServerAliveInterval 30
`
	return write(root,
		file{name: "etc/ssh/ssh_config.d/rootcell.conf", text: config},
		file{name: "etc/ssh/ssh_known_hosts", text: knownHosts},
	)
}
