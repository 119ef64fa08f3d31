// Package ruleset renders the firewall's nftables ruleset. The rules are the file
// rootcell.nft, which Go and Nix read alike; this package prints the definitions
// that it needs before it and fills its sets after it. Everything that is printed
// is typed and checked, so no value can add a rule.
package ruleset

import (
	_ "embed" // the ruleset is a file of its own
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

//go:embed rootcell.nft
var rules string

// maxInterface is IFNAMSIZ without its terminating NUL.
const maxInterface = 15

// Params are the ruleset's only parameters. All addresses are IPv4.
type Params struct {
	PrivateInterface string // the link to the agent
	Agent, Firewall  netip.Addr
	DNSPort          uint16
	HTTPSPort        uint16
	ConnectPort      uint16
	SSHPort          uint16 // the firewall's own SSH server, never reachable for the agent
	DaemonUID        uint32 // the only user that may open connections outward

	Resolvers     []netip.AddrPort // DNS servers the daemon asks
	AllowPrivate  []netip.Prefix   // special ranges that allowed names may resolve to
	HostAddresses []netip.Prefix   // addresses of the machine hosting the cell, never reachable
}

// Validate reports every value that cannot be rendered.
//
// Invariant: what passes here prints as one token of the ruleset's language
// (TestRenderRefuses).
func (p Params) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !isInterface(p.PrivateInterface) {
		bad("checking interface %q: use 1 to %d letters, digits, '.', '_' or '-'", p.PrivateInterface, maxInterface)
	}
	for _, a := range []struct {
		what string
		addr netip.Addr
	}{{"the agent's address", p.Agent}, {"the firewall's address", p.Firewall}} {
		if !a.addr.Is4() || a.addr.IsUnspecified() || a.addr.IsMulticast() {
			bad("checking %s %s: a unicast IPv4 address is needed", a.what, a.addr)
		}
	}
	if p.Agent == p.Firewall {
		bad("checking addresses: agent and firewall are both %s", p.Agent)
	}
	ports := []uint16{p.DNSPort, p.HTTPSPort, p.ConnectPort}
	if slices.Contains(ports, 0) || p.SSHPort == 0 {
		bad("checking ports: none of them may be 0")
	}
	if slices.Sort(ports); len(slices.Compact(ports)) != 3 {
		bad("checking ports: DNS %d, HTTPS %d and CONNECT %d must differ", p.DNSPort, p.HTTPSPort, p.ConnectPort)
	}
	for _, r := range p.Resolvers {
		if !r.Addr().Is4() || r.Port() == 0 {
			bad("checking resolver %s: an IPv4 address and port are needed", r)
		}
	}
	for _, prefix := range slices.Concat(p.AllowPrivate, p.HostAddresses) {
		if !prefix.IsValid() || !prefix.Addr().Is4() {
			bad("checking range %s: an IPv4 range is needed", prefix)
		}
	}
	return errors.Join(errs...)
}

// Render returns the ruleset for `nft -f -`. Equal parameters give equal text,
// in whatever order their lists are.
func Render(p Params) (string, error) {
	if err := p.Validate(); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "define private_if = \"%s\"\n", p.PrivateInterface)
	fmt.Fprintf(&b, "define agent_addr = %s\n", p.Agent)
	fmt.Fprintf(&b, "define firewall_addr = %s\n", p.Firewall)
	fmt.Fprintf(&b, "define dns_port = %d\n", p.DNSPort)
	fmt.Fprintf(&b, "define https_port = %d\n", p.HTTPSPort)
	fmt.Fprintf(&b, "define connect_port = %d\n", p.ConnectPort)
	fmt.Fprintf(&b, "define ssh_port = %d\n", p.SSHPort)
	fmt.Fprintf(&b, "define daemon_uid = %d\n\n", p.DaemonUID)
	b.WriteString(rules)

	resolvers := make([]string, 0, len(p.Resolvers))
	for _, r := range p.Resolvers {
		resolvers = append(resolvers, fmt.Sprintf("%s . %d", r.Addr(), r.Port()))
	}
	fill(&b, "resolvers", resolvers)
	fill(&b, "allow_private", ranges(p.AllowPrivate))
	fill(&b, "host_addresses", ranges(p.HostAddresses))
	return b.String(), nil
}

// ranges prints the prefixes without host bits. Where one contains another only
// the wider one is printed: older nft refuses overlapping elements.
func ranges(prefixes []netip.Prefix) []string {
	var out []string
	for i, p := range prefixes {
		p = p.Masked()
		covered := slices.ContainsFunc(prefixes, func(q netip.Prefix) bool {
			return q.Bits() < p.Bits() && q.Masked().Contains(p.Addr())
		})
		if !covered && !slices.Contains(out, prefixes[i].Masked().String()) {
			out = append(out, p.String())
		}
	}
	return out
}

func fill(b *strings.Builder, set string, elements []string) {
	if len(elements) == 0 {
		return
	}
	slices.Sort(elements)
	fmt.Fprintf(b, "\nadd element inet rootcell %s { %s }\n", set, strings.Join(slices.Compact(elements), ", "))
}

func isInterface(s string) bool {
	if s == "" || len(s) > maxInterface || s == "." || s == ".." {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	})
}
