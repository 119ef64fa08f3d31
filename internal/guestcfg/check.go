package guestcfg

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
)

var (
	labelPattern = regexp.MustCompile(`\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\z`)
	userPattern  = regexp.MustCompile(`\A[a-z_][a-z0-9_-]{0,30}\z`)
	envPattern   = regexp.MustCompile(`\A[A-Za-z_][A-Za-z0-9_]*\z`)
)

// Check reports every problem of c, joined. A nil result means that a guest of
// this version can be configured from c alone.
func (c Config) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if c.Schema != Schema {
		bad("schema is %d, not %d", c.Schema, Schema)
	}
	if !labelPattern.MatchString(c.Instance) {
		bad("instance %q is not a valid name", c.Instance)
	}
	if !labelPattern.MatchString(c.Hostname) {
		bad("hostname %q is not a DNS label", c.Hostname)
	}
	errs = append(errs, c.Network.check(c.Role)...)
	if err := checkPEM(c.SSH.HostKey.Reveal(), "OPENSSH PRIVATE KEY"); err != nil {
		bad("ssh.host_key: %w", err)
	}
	if len(c.SSH.AuthorizedKeys) == 0 {
		bad("ssh.authorized_keys is empty: nobody could log in")
	}
	for i, line := range c.SSH.AuthorizedKeys {
		// Invariant: one line a key; a line break would smuggle in another one
		// (TestCheck "an authorized key with a line break").
		if strings.TrimSpace(line) == "" || strings.ContainsAny(line, "\r\n\x00") {
			bad("ssh.authorized_keys[%d] is not one line", i)
		}
	}
	switch c.Role {
	case RoleFirewall:
		if c.Firewall == nil || c.Agent != nil {
			bad("role %q needs the part firewall and no other", c.Role)
			break
		}
		errs = append(errs, c.Firewall.check()...)
	case RoleAgent:
		if c.Agent == nil || c.Firewall != nil {
			bad("role %q needs the part agent and no other", c.Role)
			break
		}
		errs = append(errs, c.Agent.check()...)
	default:
		bad("role %q is neither %q nor %q", c.Role, RoleAgent, RoleFirewall)
	}
	return errors.Join(errs...)
}

func (n Network) check(role string) []error {
	errs := n.Cell.check("network.cell")
	switch {
	case role == RoleFirewall && n.Uplink == nil:
		errs = append(errs, errors.New("network.uplink is missing"))
	// Invariant: an agent has one network card (TestCheck "an agent with an uplink").
	case role == RoleAgent && n.Uplink != nil:
		errs = append(errs, errors.New("network.uplink: an agent has no uplink"))
	case n.Uplink != nil:
		errs = append(errs, n.Uplink.check("network.uplink")...)
		if strings.EqualFold(n.Uplink.MAC, n.Cell.MAC) {
			errs = append(errs, fmt.Errorf("network.uplink.mac %q is also network.cell.mac", n.Uplink.MAC))
		}
	}
	if role == RoleFirewall && n.Cell.Gateway != "" {
		errs = append(errs, errors.New("network.cell.gateway: the firewall has no route through its agent"))
	}
	if err := checkMAC(n.PeerMAC); err != nil {
		errs = append(errs, fmt.Errorf("network.peer_mac: %w", err))
	}
	peer, err := netip.ParseAddr(n.PeerAddress)
	switch cell, cellErr := netip.ParsePrefix(n.Cell.Address); {
	case err != nil:
		errs = append(errs, fmt.Errorf("network.peer_address: %w", err))
	case cellErr == nil && (!cell.Contains(peer) || cell.Addr() == peer):
		errs = append(errs, fmt.Errorf("network.peer_address %s is not another address of %s", peer, cell.Masked()))
	}
	return errs
}

func (i Interface) check(name string) []error {
	var errs []error
	if err := checkMAC(i.MAC); err != nil {
		errs = append(errs, fmt.Errorf("%s.mac: %w", name, err))
	}
	prefix, err := netip.ParsePrefix(i.Address)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("%s.address: %w", name, err))
	case !prefix.Addr().Is4() || prefix.Bits() < 8 || prefix.Bits() > 30:
		errs = append(errs, fmt.Errorf("%s.address %q is not an IPv4 address with a prefix of 8 to 30", name, i.Address))
	}
	if i.Gateway != "" {
		gateway, gwErr := netip.ParseAddr(i.Gateway)
		if gwErr != nil || (err == nil && (!prefix.Contains(gateway) || prefix.Addr() == gateway)) {
			errs = append(errs, fmt.Errorf("%s.gateway %q is not another address of %s", name, i.Gateway, i.Address))
		}
	}
	if i.MTU != 0 && (i.MTU < 576 || i.MTU > 65521) {
		errs = append(errs, fmt.Errorf("%s.mtu %d is outside 576 to 65521", name, i.MTU))
	}
	return errs
}

func (f Firewall) check() []error {
	var errs []error
	if strings.TrimSpace(f.TOML) == "" {
		errs = append(errs, errors.New("firewall.toml is empty"))
	}
	if err := checkPEM(f.CACert, "CERTIFICATE"); err != nil {
		errs = append(errs, fmt.Errorf("firewall.ca_cert: %w", err))
	}
	if err := checkPEM(f.CAKey.Reveal(), "PRIVATE KEY"); err != nil {
		errs = append(errs, fmt.Errorf("firewall.ca_key: %w", err))
	}
	if f.UpstreamRoots != "" {
		if err := checkBundle(f.UpstreamRoots); err != nil {
			errs = append(errs, fmt.Errorf("firewall.upstream_roots: %w", err))
		}
	}
	for name := range f.Policy {
		// Invariant: a policy file's name cannot leave the policy directory
		// (TestCheck "a policy file outside its directory").
		if name == "" || name == "." || name == ".." || filepath.Base(name) != name || strings.ContainsAny(name, "/\\\x00\r\n") {
			errs = append(errs, fmt.Errorf("firewall.policy: %q is not a file name", name))
		}
	}
	return errs
}

func (a Agent) check() []error {
	var errs []error
	if !userPattern.MatchString(a.User) || a.User == "root" {
		errs = append(errs, fmt.Errorf("agent.user %q is not an ordinary login name", a.User))
	}
	if err := checkPEM(a.CACert, "CERTIFICATE"); err != nil {
		errs = append(errs, fmt.Errorf("agent.ca_cert: %w", err))
	}
	if _, err := netip.ParseAddrPort(a.ConnectAddress); err != nil {
		errs = append(errs, fmt.Errorf("agent.connect_address: %w", err))
	}
	for name, value := range a.Env {
		// Invariant: one variable is one line of /etc/environment (TestCheck
		// "an environment value with a line break").
		if !envPattern.MatchString(name) || strings.ContainsAny(value, "\x00\r\n\"") {
			errs = append(errs, fmt.Errorf("agent.env: %q is not a variable of one line without double quotes", name))
		}
	}
	return errs
}

// checkMAC accepts a unicast 48-bit address.
func checkMAC(text string) error {
	mac, err := net.ParseMAC(text)
	if err != nil {
		return err
	}
	if len(mac) != 6 || mac[0]&1 != 0 {
		return fmt.Errorf("%q is not a unicast Ethernet address", text)
	}
	return nil
}

// checkPEM accepts exactly one PEM block whose type ends in suffix. The error
// never quotes the text, which may be a key.
func checkPEM(text, suffix string) error {
	block, rest := pem.Decode([]byte(text))
	if block == nil || !strings.HasSuffix(block.Type, suffix) {
		return fmt.Errorf("is not a PEM %s", suffix)
	}
	// Invariant: a certificate file of the agent holds no second block, which
	// could be a private key (TestCheck "a CA certificate followed by its key").
	if strings.TrimSpace(string(rest)) != "" || !strings.HasPrefix(text, "-----BEGIN") {
		return errors.New("holds more than one PEM block")
	}
	return nil
}

// checkBundle accepts one or more PEM certificates and nothing else but
// comments.
func checkBundle(text string) error {
	rest := []byte(text)
	for n := 0; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if n == 0 {
				return errors.New("holds no PEM certificate")
			}
			return nil
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("holds a PEM %s, not certificates alone", block.Type)
		}
	}
}
