package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
)

var (
	userPattern     = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)
	packagePattern  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9+._-]{0,127}$`)
	regionPattern   = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$`)
	instancePattern = regexp.MustCompile(`^[a-z][a-z0-9-]*\.[a-z0-9-]+$`)
	accountPattern  = regexp.MustCompile(`^[0-9]{12}$`)
)

func userName(s string) *fault {
	if s == "root" {
		return faultf(`write another name, e.g. "agent"; that user becomes root with sudo`, "the agent's login cannot be root")
	}
	return matches(userPattern, s, "user name", "lower-case letters, digits, - and _, at most 31, beginning with a letter")
}

func packageName(s string) *fault {
	return matches(packagePattern, s, "package name", "letters, digits and + . _ -")
}

func region(s string) *fault {
	if s == "" {
		return nil
	}
	return matches(regionPattern, s, "AWS region", `write for instance "us-west-2"`)
}

func instanceType(s string) *fault {
	return matches(instancePattern, s, "EC2 instance type", `write for instance "t4g.large"`)
}

func accountID(s string) *fault {
	return matches(accountPattern, s, "AWS account", "write twelve digits in quotes")
}

func matches(pattern *regexp.Regexp, s, noun, hint string) *fault {
	if pattern.MatchString(s) {
		return nil
	}
	return faultf(hint, "%q is no %s", s, noun)
}

func plain(string) *fault { return nil }

// absoluteOrEmpty checks the path of a file on the host. Commands run in any directory, so a relative one would mean
// another file each time.
func absoluteOrEmpty(s string) *fault {
	if s != "" && !filepath.IsAbs(s) {
		return faultf("write it from the root, beginning with /", "%q is not an absolute path", s)
	}
	return nil
}

func nonEmpty(s string) *fault {
	if strings.TrimSpace(s) == "" {
		return faultf("remove the line to get the default", "the value is empty")
	}
	return nil
}

// program checks the name or path of a host tool. It is started without a
// shell, so that arguments in it would be taken for part of the name.
func program(s string) *fault {
	if f := nonEmpty(s); f != nil {
		return f
	}
	if strings.HasPrefix(s, "-") {
		return faultf("write the name or the path of the program", "%q looks like an option", s)
	}
	return nil
}

func controlCIDR(s string) *fault {
	if s == Auto {
		return nil
	}
	prefix, err := netip.ParsePrefix(s)
	hint := `write "auto" or an IPv4 network such as "203.0.113.7/32"`
	switch {
	case err != nil || !prefix.Addr().Is4():
		return faultf(hint, "%q is no IPv4 network", s)
	case prefix != prefix.Masked():
		return faultf(fmt.Sprintf("write %q", prefix.Masked()), "%q has bits set behind its prefix", s)
	case prefix.Bits() < 8:
		return faultf(hint, "%q would let almost everyone reach the firewall's SSH", s)
	}
	return nil
}

// pool is the pair [first, last] of /24 network addresses.
func pool(path string) key {
	const hint = `write the first and last /24, e.g. ["192.168.100.0", "192.168.254.0"]`
	return key{
		path: path,
		env:  variable(path),
		list: true,
		set: func(c *Config, v any) []indexed {
			array, ok := v.([]any)
			if !ok {
				return []indexed{{-1, *wrongType(v, `the first and last /24, e.g. ["192.168.100.0", "192.168.254.0"]`)}}
			}
			if len(array) != 2 {
				return []indexed{{-1, *faultf(hint, "the pool has %d addresses", len(array))}}
			}
			var ends [2]netip.Addr
			var faults []indexed
			for i, item := range array {
				text, f := asString(item)
				if f == nil {
					ends[i], f = privateAddr(text)
				}
				if f == nil && ends[i].As4()[3] != 0 {
					f = faultf(hint, "%q is no network address of a /24", text)
				}
				if f != nil {
					faults = append(faults, indexed{i, *f})
				}
			}
			switch {
			case faults != nil:
				return faults
			case ends[1].Less(ends[0]):
				return []indexed{{-1, *faultf(hint, "the pool ends (%s) before it begins (%s)", ends[1], ends[0])}}
			case privateRange(ends[0]) != privateRange(ends[1]):
				return []indexed{{-1, *faultf(hint, "the pool from %s to %s crosses public addresses", ends[0], ends[1])}}
			}
			c.Network.PoolFirst, c.Network.PoolLast = ends[0], ends[1]
			return nil
		},
		get: func(c *Config) any { return []string{c.Network.PoolFirst.String(), c.Network.PoolLast.String()} },
	}
}

func address(path string, at func(*Config) *addr) key {
	return field(path, at, func(v any) (addr, *fault) {
		text, f := asString(v)
		if f != nil {
			return addr{}, f
		}
		if text == "" {
			return addr{}, nil // the same as leaving the key out
		}
		ip, f := privateAddr(text)
		if f == nil && (ip.As4()[3] == 0 || ip.As4()[3] == 255) {
			f = faultf("write a host address such as 192.168.100.10", "%q is the network's own or its broadcast address", text)
		}
		return ip, f
	}, func(a addr) any {
		if !a.IsValid() {
			return ""
		}
		return a.String()
	})
}

func privateAddr(text string) (addr, *fault) {
	ip, err := netip.ParseAddr(text)
	if err != nil || !ip.Is4() {
		return addr{}, faultf("write four numbers with dots, e.g. 192.168.100.10", "%q is no IPv4 address", text)
	}
	if !privateRange(ip).IsValid() {
		return addr{}, faultf("take one from 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16", "%q is no private address", text)
	}
	return ip, nil
}

// privateRange is the RFC 1918 range that holds ip, or the zero Prefix.
func privateRange(ip addr) netip.Prefix {
	for _, text := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} {
		if prefix := netip.MustParsePrefix(text); prefix.Contains(ip) {
			return prefix
		}
	}
	return netip.Prefix{}
}

func resolvers(path string) key {
	return elements(path, func(c *Config) *[]netip.AddrPort { return &c.Policy.Resolvers }, func(s string) (netip.AddrPort, *fault) {
		server, err := netip.ParseAddrPort(s)
		if err != nil {
			var ip netip.Addr
			if ip, err = netip.ParseAddr(s); err == nil {
				server = netip.AddrPortFrom(ip, 53)
			}
		}
		if err != nil || !server.Addr().Is4() || server.Port() == 0 || server.Addr().IsUnspecified() || server.Addr().IsMulticast() {
			return netip.AddrPort{}, faultf(`write an IPv4 address, with :PORT unless that is 53, e.g. "9.9.9.9"`, "%q is no resolver", s)
		}
		return server, nil
	}, netip.AddrPort.String)
}

func prefixes(path string) key {
	return elements(path, func(c *Config) *[]netip.Prefix { return &c.Policy.AllowPrivate }, func(s string) (netip.Prefix, *fault) {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			var ip netip.Addr
			if ip, err = netip.ParseAddr(s); err == nil {
				prefix = netip.PrefixFrom(ip, ip.BitLen())
			}
		}
		const hint = `write an IPv4 network such as "10.20.0.0/16"`
		switch {
		case err != nil || !prefix.Addr().Is4():
			return netip.Prefix{}, faultf(hint, "%q is no IPv4 network", s)
		case prefix != prefix.Masked():
			return netip.Prefix{}, faultf(fmt.Sprintf("write %q", prefix.Masked()), "%q has bits set behind its prefix", s)
		case prefix.Bits() < 8:
			return netip.Prefix{}, faultf(hint, "%q covers more than any private network", s)
		case prefix.Addr().IsLoopback():
			return netip.Prefix{}, faultf("remove it", "%q is the firewall's own loopback", s)
		}
		return prefix, nil
	}, netip.Prefix.String)
}
