package hostname

import (
	"strconv"
	"strings"
)

// ParseAuthority reads `host` or `host:port` as it arrives on the wire (the
// Host field, :authority, the target of CONNECT). The port is 1 to 65535 in
// decimal without leading zeros, and 0 stands for "none given". Userinfo,
// brackets, an empty port and everything Parse refuses are errors of type
// *ParseError.
func ParseAuthority(s string) (Name, uint16, error) {
	host, portText, hasPort := strings.Cut(s, ":")
	var port uint16
	if hasPort {
		var why string
		if port, why = parsePort(portText); why != "" {
			return Name{}, 0, &ParseError{Input: s, Why: why}
		}
	}
	name, err := Parse(host)
	if err != nil {
		return Name{}, 0, &ParseError{Input: s, Why: err.(*ParseError).Why}
	}
	return name, port, nil
}

func parsePort(s string) (port uint16, why string) {
	const grammar = "its port is not a number from 1 to 65535 without leading zeros"
	if s == "" || len(s) > 5 || s[0] == '0' || strings.Trim(s, "0123456789") != "" {
		return 0, grammar
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, grammar
	}
	return uint16(n), ""
}
