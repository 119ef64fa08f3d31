package firewall

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"time"
)

// path returns a path, relative ones from dir.
func (d *document) path(key, dir string, required bool) string {
	text := d.text1(key, "", required)
	if text == "" || filepath.IsAbs(text) {
		return text
	}
	return filepath.Join(dir, text)
}

func (d *document) addrPort(key string) netip.AddrPort {
	text := d.text1(key, "", true)
	if text == "" {
		return netip.AddrPort{}
	}
	addr, err := netip.ParseAddrPort(text)
	if err != nil || !addr.Addr().Is4() || addr.Port() == 0 {
		d.bad(key, fmt.Sprintf("%q is not an IPv4 address with a port", text), `write "192.168.100.10:53"`)
	}
	return addr
}

func (d *document) resolvers(key string) []netip.AddrPort {
	texts := d.texts(key)
	if len(texts) == 0 {
		d.bad(key, "no resolver is named", `name at least one, such as ["1.1.1.1:53"]`)
	}
	var out []netip.AddrPort
	for i, text := range texts {
		addr, err := netip.ParseAddrPort(text)
		if bare, bareErr := netip.ParseAddr(text); bareErr == nil {
			addr, err = netip.AddrPortFrom(bare, 53), nil
		}
		if err != nil || !addr.Addr().Is4() || addr.Port() == 0 {
			d.bad(fmt.Sprintf("%s[%d]", key, i), fmt.Sprintf("%q is not an IPv4 address with or without a port", text), "")
			continue
		}
		out = append(out, addr)
	}
	return out
}

// prefixes reads CIDR ranges; a single address is a range of its own.
func (d *document) prefixes(key string) []netip.Prefix {
	var out []netip.Prefix
	for i, text := range d.texts(key) {
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || !prefix.Addr().Is4() {
			d.bad(fmt.Sprintf("%s[%d]", key, i), fmt.Sprintf("%q is not an IPv4 range", text), `write "10.1.0.0/16"`)
			continue
		}
		out = append(out, prefix.Masked())
	}
	return out
}

func (d *document) duration(key string, fallback, least, most time.Duration) time.Duration {
	text := d.text1(key, "", false)
	if text == "" {
		return fallback
	}
	value, err := time.ParseDuration(text)
	if err != nil || value < least || value > most {
		d.bad(key, fmt.Sprintf("%q is not a duration from %s to %s", text, least, most), `write "90m"`)
		return fallback
	}
	return value
}
