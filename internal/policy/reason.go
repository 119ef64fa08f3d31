package policy

// Kind is what a list of rules is about. Its text is the one used in the audit
// log, on the control socket and on the command line.
type Kind string

// The three kinds, one list each.
const (
	KindDNS   Kind = "dns"
	KindHTTPS Kind = "https"
	KindSSH   Kind = "ssh"
)

// Kinds returns every kind in the order in which they are shown.
func Kinds() []Kind { return []Kind{KindDNS, KindHTTPS, KindSSH} }

// Reason is a short stable code that says why something was denied. It is
// empty for what is allowed. Codes are never renamed or reused: scripts and the
// agent itself read them from the audit log and from the Rootcell-Deny header.
type Reason string

// The reasons. Package policy gives the first four by itself; the others are
// given by the listeners, which see more than a rule can.
const (
	NoRule        Reason = "no-rule"
	PathRule      Reason = "path-rule"
	AmbiguousPath Reason = "ambiguous-path"
	BadPolicy     Reason = "bad-policy"

	Malformed           Reason = "malformed"
	Limit               Reason = "limit"
	Port                Reason = "port"
	Revoked             Reason = "revoked"
	SpecialAddress      Reason = "special-address"
	UpstreamUnreachable Reason = "upstream-unreachable"

	QueryType Reason = "query-type"

	NoSNI            Reason = "no-sni"
	SNIHostMismatch  Reason = "sni-host-mismatch"
	TLSHandshake     Reason = "tls-handshake"
	NotTLS           Reason = "not-tls"
	NotHTTP          Reason = "not-http"
	Cleartext        Reason = "cleartext"
	Tunnel           Reason = "tunnel"
	UpstreamCert     Reason = "upstream-cert"
	UpstreamProtocol Reason = "upstream-protocol"

	NotSSH Reason = "not-ssh"
)

// ReasonInfo is a reason and what it means to a person.
type ReasonInfo struct {
	Reason  Reason
	Meaning string // one line, no full stop
}

// Reasons returns the one table of reasons, in the order in which they are
// documented. TestReasonsAreOneTable holds it against the constants.
func Reasons() []ReasonInfo {
	return []ReasonInfo{
		{NoRule, "no line of the list matches the host"},
		{PathRule, "lines match the host, and none of their regexes matches the request"},
		{AmbiguousPath, "path rules apply to the host, and the path can be read in more than one way"},
		{BadPolicy, "the list is missing or has an error, so everything of its kind is denied"},
		{Malformed, "the query, request or connection breaks its protocol's grammar or names no valid host"},
		{Limit, "a limit on rate, size, count or time was reached"},
		{Port, "the port is not one that the kind allows: 443 for HTTPS, 22 for SSH"},
		{Revoked, "a reload took away the rule that had allowed an open connection"},
		{SpecialAddress, "the name has only private, loopback, link-local, metadata or otherwise special addresses"},
		{UpstreamUnreachable, "the name does not resolve or its server does not answer"},
		{QueryType, "the DNS query asks for a type or class that is not served"},
		{NoSNI, "the TLS ClientHello names no server"},
		{SNIHostMismatch, "the request is for another host than the TLS connection"},
		{TLSHandshake, "the client's TLS handshake is not acceptable or was not finished"},
		{NotTLS, "the bytes on the HTTPS port are not TLS"},
		{NotHTTP, "the bytes inside the TLS connection are not HTTP"},
		{Cleartext, "HTTP without TLS is never forwarded"},
		{Tunnel, "a request inside HTTPS asks for a tunnel: CONNECT or an upgrade other than WebSocket"},
		{UpstreamCert, "the server's certificate is not valid for the name"},
		{UpstreamProtocol, "the server's answer breaks its protocol's grammar"},
		{NotSSH, "one side of the SSH connection does not speak SSH"},
	}
}

// Meaning returns the one-line meaning of r, and the empty string for a code
// that is not in the table.
func (r Reason) Meaning() string {
	for _, info := range Reasons() {
		if info.Reason == r {
			return info.Meaning
		}
	}
	return ""
}
