package specialaddr

import (
	"encoding/binary"
	"net/netip"
)

// table4 lists what is not the public IPv4 internet, ascending. Within one range
// the narrower part stands on its own so that it keeps its class. Sources: the
// IANA IPv4 Special-Purpose Address Registry (RFC 6890), the multicast and class
// E blocks, and the metadata services that cloud providers put elsewhere.
var table4 = []range4{
	between4("0.0.0.0", "0.255.255.255", ClassUnspecified),
	between4("10.0.0.0", "10.255.255.255", ClassPrivate),
	between4("100.64.0.0", "100.100.100.199", ClassShared),
	between4("100.100.100.200", "100.100.100.200", ClassMetadata),
	between4("100.100.100.201", "100.127.255.255", ClassShared),
	between4("127.0.0.0", "127.255.255.255", ClassLoopback),
	between4("168.63.129.16", "168.63.129.16", ClassMetadata), // a public number that answers only inside one cloud
	between4("169.254.0.0", "169.254.168.255", ClassLinkLocal),
	between4("169.254.169.0", "169.254.170.255", ClassMetadata),
	between4("169.254.171.0", "169.254.255.255", ClassLinkLocal),
	between4("172.16.0.0", "172.31.255.255", ClassPrivate),
	between4("192.0.0.0", "192.0.0.191", ClassProtocol),
	between4("192.0.0.192", "192.0.0.192", ClassMetadata),
	between4("192.0.0.193", "192.0.0.255", ClassProtocol),
	between4("192.0.2.0", "192.0.2.255", ClassDocumentation),
	between4("192.31.196.0", "192.31.196.255", ClassProtocol), // AS112, RFC 7535
	between4("192.52.193.0", "192.52.193.255", ClassProtocol), // AMT, RFC 7450
	between4("192.88.99.0", "192.88.99.255", ClassTransition), // 6to4 relays, RFC 7526
	between4("192.168.0.0", "192.168.255.255", ClassPrivate),
	between4("192.175.48.0", "192.175.48.255", ClassProtocol), // AS112, RFC 7534
	between4("198.18.0.0", "198.19.255.255", ClassBenchmarking),
	between4("198.51.100.0", "198.51.100.255", ClassDocumentation),
	between4("203.0.113.0", "203.0.113.255", ClassDocumentation),
	between4("224.0.0.0", "239.255.255.255", ClassMulticast),
	between4("240.0.0.0", "255.255.255.254", ClassReserved),
	between4("255.255.255.255", "255.255.255.255", ClassBroadcast),
}

// table6 lists the special blocks of IPv6, narrower before wider; :: and ::1
// stand first, at their own number. Source: the IANA IPv6 Special-Purpose Address
// Registry. What is outside 2000::/3 is special without being listed.
var table6 = []range6{
	prefix6("::/128", ClassUnspecified),
	prefix6("::1/128", ClassLoopback),
	prefix6("::/96", ClassTransition),
	prefix6("64:ff9b::/96", ClassTransition),
	prefix6("64:ff9b:1::/48", ClassTransition),
	prefix6("100::/64", ClassDiscard),
	prefix6("100:0:0:1::/64", ClassProtocol),
	prefix6("2001::/32", ClassTransition),
	prefix6("2001:2::/48", ClassBenchmarking),
	prefix6("2001::/23", ClassProtocol),
	prefix6("2001:db8::/32", ClassDocumentation),
	prefix6("2002::/16", ClassTransition),
	prefix6("2620:4f:8000::/48", ClassProtocol),
	prefix6("3fff::/20", ClassDocumentation),
	prefix6("5f00::/16", ClassProtocol),
	prefix6("fd00:ec2::/32", ClassMetadata),
	prefix6("fd20:ce::/32", ClassMetadata),
	prefix6("fc00::/7", ClassPrivate),
	prefix6("fe80::/10", ClassLinkLocal),
	prefix6("fec0::/10", ClassPrivate),
	prefix6("ff00::/8", ClassMulticast),
}

var (
	compatible    = netip.MustParsePrefix("::/96")
	nat64         = netip.MustParsePrefix("64:ff9b::/96")
	nat64Local    = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour     = netip.MustParsePrefix("2002::/16")
	teredo        = netip.MustParsePrefix("2001::/32")
	globalUnicast = netip.MustParsePrefix("2000::/3")
)

func between4(first, last, class string) range4 {
	return range4{number4(first), number4(last), class}
}

func number4(s string) uint32 {
	b := netip.MustParseAddr(s).As4()
	return binary.BigEndian.Uint32(b[:])
}

func prefix6(s, class string) range6 {
	return range6{netip.MustParsePrefix(s), class}
}
