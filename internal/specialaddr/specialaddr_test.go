package specialaddr_test

import (
	"net/netip"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/specialaddr"
)

func TestCheckKnowsEveryRangeAtItsEdges(t *testing.T) {
	tests := []struct {
		first, last string // of the range, inclusive
		class       string
		before      string // "" when the neighbour is special too or does not exist
		after       string
	}{
		{"0.0.0.0", "0.255.255.255", specialaddr.ClassUnspecified, "", "1.0.0.0"},
		{"10.0.0.0", "10.255.255.255", specialaddr.ClassPrivate, "9.255.255.255", "11.0.0.0"},
		{"100.64.0.0", "100.100.100.199", specialaddr.ClassShared, "100.63.255.255", ""},
		{"100.100.100.200", "100.100.100.200", specialaddr.ClassMetadata, "", ""},
		{"100.100.100.201", "100.127.255.255", specialaddr.ClassShared, "", "100.128.0.0"},
		{"127.0.0.0", "127.255.255.255", specialaddr.ClassLoopback, "126.255.255.255", "128.0.0.0"},
		{"168.63.129.16", "168.63.129.16", specialaddr.ClassMetadata, "168.63.129.15", "168.63.129.17"},
		{"169.254.0.0", "169.254.168.255", specialaddr.ClassLinkLocal, "169.253.255.255", ""},
		{"169.254.169.0", "169.254.170.255", specialaddr.ClassMetadata, "", ""},
		{"169.254.171.0", "169.254.255.255", specialaddr.ClassLinkLocal, "", "169.255.0.0"},
		{"172.16.0.0", "172.31.255.255", specialaddr.ClassPrivate, "172.15.255.255", "172.32.0.0"},
		{"192.0.0.0", "192.0.0.191", specialaddr.ClassProtocol, "191.255.255.255", ""},
		{"192.0.0.192", "192.0.0.192", specialaddr.ClassMetadata, "", ""},
		{"192.0.0.193", "192.0.0.255", specialaddr.ClassProtocol, "", "192.0.1.0"},
		{"192.0.2.0", "192.0.2.255", specialaddr.ClassDocumentation, "192.0.1.255", "192.0.3.0"},
		{"192.31.196.0", "192.31.196.255", specialaddr.ClassProtocol, "192.31.195.255", "192.31.197.0"},
		{"192.52.193.0", "192.52.193.255", specialaddr.ClassProtocol, "192.52.192.255", "192.52.194.0"},
		{"192.88.99.0", "192.88.99.255", specialaddr.ClassTransition, "192.88.98.255", "192.88.100.0"},
		{"192.168.0.0", "192.168.255.255", specialaddr.ClassPrivate, "192.167.255.255", "192.169.0.0"},
		{"192.175.48.0", "192.175.48.255", specialaddr.ClassProtocol, "192.175.47.255", "192.175.49.0"},
		{"198.18.0.0", "198.19.255.255", specialaddr.ClassBenchmarking, "198.17.255.255", "198.20.0.0"},
		{"198.51.100.0", "198.51.100.255", specialaddr.ClassDocumentation, "198.51.99.255", "198.51.101.0"},
		{"203.0.113.0", "203.0.113.255", specialaddr.ClassDocumentation, "203.0.112.255", "203.0.114.0"},
		{"224.0.0.0", "239.255.255.255", specialaddr.ClassMulticast, "223.255.255.255", ""},
		{"240.0.0.0", "255.255.255.254", specialaddr.ClassReserved, "", ""},
		{"255.255.255.255", "255.255.255.255", specialaddr.ClassBroadcast, "", ""},

		{"::", "::", specialaddr.ClassUnspecified, "", ""},
		{"::1", "::1", specialaddr.ClassLoopback, "", ""},
		{"100::", "100::ffff:ffff:ffff:ffff", specialaddr.ClassDiscard, "", ""},
		{"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", specialaddr.ClassDocumentation, "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"},
		{"2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", specialaddr.ClassBenchmarking, "", ""},
		{"2001:10::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", specialaddr.ClassProtocol, "", "2001:200::"},
		{"2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff", specialaddr.ClassProtocol, "2620:4f:7fff:ffff:ffff:ffff:ffff:ffff", "2620:4f:8001::"},
		{"3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", specialaddr.ClassDocumentation, "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"},
		{"5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", specialaddr.ClassProtocol, "", ""},
		{"4000::", "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", specialaddr.ClassReserved, "", ""},
		{"fc00::", "fc00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", specialaddr.ClassPrivate, "", ""},
		{"fd00:ec2::254", "fd00:ec2::254", specialaddr.ClassMetadata, "", ""},
		{"fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", specialaddr.ClassLinkLocal, "", ""},
		{"fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", specialaddr.ClassPrivate, "", ""},
		{"ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", specialaddr.ClassMulticast, "", ""},
	}
	for _, test := range tests {
		for _, s := range []string{test.first, test.last} {
			if class, special := specialaddr.Check(netip.MustParseAddr(s)); !special || class != test.class {
				t.Errorf("Check(%s) = %q, %v; want %q, true", s, class, special, test.class)
			}
		}
		for _, s := range []string{test.before, test.after} {
			if s == "" {
				continue
			}
			if class, special := specialaddr.Check(netip.MustParseAddr(s)); special {
				t.Errorf("Check(%s) = %q, true; it is a public address", s, class)
			}
		}
	}
}

func TestCheckUnpacksEmbeddedAddresses(t *testing.T) {
	tests := map[string]struct {
		addr, class string
		special     bool
	}{
		"v4-mapped loopback":                  {"::ffff:127.0.0.1", specialaddr.ClassLoopback, true},
		"v4-mapped metadata":                  {"::ffff:169.254.169.254", specialaddr.ClassMetadata, true},
		"v4-mapped public":                    {"::ffff:93.184.216.34", "", false},
		"v4-compatible loopback":              {"::127.0.0.1", specialaddr.ClassLoopback, true},
		"v4-compatible public":                {"::93.184.216.34", specialaddr.ClassTransition, true},
		"NAT64 of loopback":                   {"64:ff9b::7f00:1", specialaddr.ClassLoopback, true},
		"NAT64 of a private address":          {"64:ff9b::10.0.0.1", specialaddr.ClassPrivate, true},
		"NAT64 of a public address":           {"64:ff9b::93.184.216.34", specialaddr.ClassTransition, true},
		"local NAT64 of metadata":             {"64:ff9b:1::169.254.169.254", specialaddr.ClassMetadata, true},
		"6to4 of a private address":           {"2002:c0a8:0101::1", specialaddr.ClassPrivate, true},
		"6to4 of a public address":            {"2002:5db8:d822::1", specialaddr.ClassTransition, true},
		"Teredo with a private server":        {"2001:0:a00:1::5555:5555", specialaddr.ClassPrivate, true},
		"Teredo with a loopback client":       {"2001:0:5db8:d822::80ff:fffe", specialaddr.ClassLoopback, true},
		"Teredo with public ends":             {"2001:0:5db8:d822::a247:27dd", specialaddr.ClassTransition, true},
		"ISATAP of loopback in public space":  {"2606:4700::5efe:127.0.0.1", specialaddr.ClassLoopback, true},
		"ISATAP (global bit) of metadata":     {"2606:4700::200:5efe:169.254.169.254", specialaddr.ClassMetadata, true},
		"ISATAP of a public address":          {"2606:4700::5efe:93.184.216.34", "", false},
		"link-local with a zone":              {"fe80::1%eth0", specialaddr.ClassZoned, true},
		"a public address with a zone":        {"2606:4700::1%eth0", specialaddr.ClassZoned, true},
		"a public v6 address":                 {"2606:4700::1111", "", false},
		"v4-mapped with a zone, if it parses": {"fe80::ffff:127.0.0.1%1", specialaddr.ClassZoned, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			class, special := specialaddr.Check(netip.MustParseAddr(test.addr))
			if class != test.class || special != test.special {
				t.Errorf("Check(%s) = %q, %v; want %q, %v", test.addr, class, special, test.class, test.special)
			}
		})
	}
}

func TestCheckTakesNoAddressAsSpecial(t *testing.T) {
	if class, special := specialaddr.Check(netip.Addr{}); !special || class != specialaddr.ClassInvalid {
		t.Errorf("Check of the zero Addr = %q, %v", class, special)
	}
}

// FuzzCheck holds the classification against what the standard library knows.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "8.8.8.8", "::ffff:10.0.0.1", "2002:7f00:1::", "ff02::1", "2606:4700::1111"} {
		f.Add(netip.MustParseAddr(s).AsSlice())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		class, special := specialaddr.Check(addr)
		if special == (class == "") {
			t.Errorf("Check(%s) = %q, %v", addr, class, special)
		}
		plain := addr.Unmap()
		if (plain.IsPrivate() || plain.IsLoopback() || plain.IsMulticast() || plain.IsLinkLocalUnicast() ||
			plain.IsUnspecified() || !plain.IsGlobalUnicast()) && !special {
			t.Errorf("Check(%s) calls it public", addr)
		}
		if c, s := specialaddr.Check(plain); c != class || s != special {
			t.Errorf("Check(%s) = %q, and of %s it is %q", addr, class, plain, c)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	addrs := []netip.Addr{netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("10.1.2.3")}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		specialaddr.Check(addrs[i%len(addrs)])
	}
}
