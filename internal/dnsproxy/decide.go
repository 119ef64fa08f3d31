package dnsproxy

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/upstream"
)

// exchange is one query on its way through the server.
type exchange struct {
	query
	client  netip.AddrPort
	proto   byte // 'u' or 't'
	limit   int  // longest response
	started time.Time

	name     hostname.Name
	snapshot enforce.Snapshot // what decided
	decision policy.Decision
	upstream netip.AddrPort
}

// handle reads and decides the message. The response is appended to dst; it is
// empty when there is none. When wait is true the name is allowed but unknown,
// and finish has to be called, which may take as long as upstream does.
func (s *Server) handle(x *exchange, msg, dst []byte) (response []byte, wait bool) {
	x.snapshot = s.gate.Current()
	switch readQuery(msg, &x.query) {
	case readDrop:
		x.decision = policy.Deny(policy.Malformed)
		s.record(x, 0, 0)
		return dst, false
	case readBroken:
		return s.refuse(x, dst, dns.RcodeFormatError, policy.Malformed, nil), false
	case readOpcode:
		return s.refuse(x, dst, dns.RcodeRefused, policy.QueryType, nil), false
	}
	if x.proto == 'u' {
		x.limit = x.size
	}
	if x.version != 0 {
		return s.refuse(x, dst, dns.RcodeBadVers, policy.Malformed, nil), false
	}
	var ok bool
	if x.name, ok = x.host(); !ok {
		return s.refuse(x, dst, dns.RcodeRefused, policy.Malformed,
			blocked("blocked by rootcell: this is not a host name")), false
	}
	// Invariant: nothing below is reached by a name that the policy in force does
	// not allow, not even the cache (TestReloadCountsAtOnce).
	x.decision = x.snapshot.Policy.DNS(x.name)
	if !x.decision.Allow {
		return s.deny(x, dst), false
	}
	if !s.reserved(x) {
		return s.refuse(x, dst, dns.RcodeRefused, policy.NoRule,
			blocked("blocked by rootcell: a local or reserved name must be listed by itself in allowed-dns.txt")), false
	}
	if x.class != dns.ClassINET {
		return s.refuse(x, dst, dns.RcodeRefused, policy.QueryType, blocked("blocked by rootcell: only class IN is answered")), false
	}
	switch x.qtype {
	case dns.TypeA:
	case dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB:
		// There is no IPv6 on the way out. HTTPS and SVCB could only offer what the
		// firewall has to take away again (ECH keys, other ports and addresses, HTTP/3),
		// and clients do without them (RFC 9460 section 3).
		dst = x.plain(dst, dns.RcodeSuccess, nil)
		s.record(x, len(dst), dns.RcodeSuccess)
		return dst, false
	default:
		return s.refuse(x, dst, dns.RcodeRefused, policy.QueryType,
			blocked("blocked by rootcell: queries of type "+x.typeName()+" are not answered; A is")), false
	}
	if a, ok := s.resolver.Cached(x.name, x.started); ok {
		return s.reply(x, dst, a, x.started), false
	}
	return dst, true
}

// finish asks upstream for a name that handle allowed, and appends the response.
func (s *Server) finish(ctx context.Context, x *exchange, dst []byte) []byte {
	suffix := coveringSuffix(x.snapshot.Policy, x.name, x.decision.Rule)
	if looksLikeData(x.name, suffix, s.limits.NameChars) {
		return s.refuse(x, dst, dns.RcodeRefused, policy.Limit,
			blocked("blocked by rootcell: the part of the name before "+suffix+" looks like data"))
	}
	if !s.budget.spend(x.name, suffix, x.started) {
		return s.refuse(x, dst, dns.RcodeRefused, policy.Limit,
			blocked("blocked by rootcell: too many different names below "+suffix+"; wait, or list this one in allowed-dns.txt"))
	}
	a, err := s.resolver.Lookup(ctx, x.name)
	now := time.Now()
	// The policy may have changed meanwhile.
	if fresh := s.gate.Current(); fresh.Generation != x.snapshot.Generation {
		x.snapshot = fresh
		if x.decision = fresh.Policy.DNS(x.name); !x.decision.Allow {
			return s.deny(x, dst)
		}
	}
	if err != nil {
		s.log.Debug("resolving", "host", x.name.String(), "error", err)
		const noReachableAuthority = 22
		return s.refuse(x, dst, dns.RcodeServerFailure, policy.UpstreamUnreachable,
			&extended{noReachableAuthority, "rootcell allows this name, but no upstream resolver answers"})
	}
	return s.reply(x, dst, a, now)
}

// reply appends what upstream said about an allowed name.
func (s *Server) reply(x *exchange, dst []byte, a *upstream.Answer, now time.Time) []byte {
	x.upstream = a.Server
	if len(a.Addrs) == 0 && a.Special.IsValid() {
		return s.refuse(x, dst, dns.RcodeRefused, policy.SpecialAddress,
			blocked(fmt.Sprintf("blocked by rootcell: it resolves to %s (%s), which is not in allow_private", a.Special, a.SpecialClass)))
	}
	start := len(dst)
	dst = x.answer(dst, a, x.limit, now)
	s.record(x, len(dst)-start, a.Rcode)
	return dst
}

// deny appends the refusal of a name that the policy does not allow.
func (s *Server) deny(x *exchange, dst []byte) []byte {
	why := "no line of allowed-dns.txt covers it"
	if x.decision.Reason == policy.BadPolicy {
		why = "allowed-dns.txt is missing or has an error"
	}
	command := "rootcell"
	if s.instance != "" && s.instance != "default" {
		command += " -i " + s.instance
	}
	host := x.name.String()
	text := "blocked by rootcell: " + why + "; on the host run: " + command + " allow " + host
	if len(text) > maxExtended {
		text = "blocked by rootcell: " + why + "; on the host run: " + command + " allow HOST"
	}
	if x.decision.Reason == policy.BadPolicy {
		text = "blocked by rootcell: " + why + "; on the host run: " + command + " policy check"
	}
	return s.refuse(x, dst, dns.RcodeRefused, x.decision.Reason, blocked(text))
}

// blocked is the Extended DNS Error of a refusal.
func blocked(text string) *extended {
	return &extended{dns.ExtendedErrorCodeBlocked, text}
}

// refuse appends a response without an answer and records the denial.
func (s *Server) refuse(x *exchange, dst []byte, rcode int, reason policy.Reason, ext *extended) []byte {
	start := len(dst)
	dst = x.plain(dst, rcode, ext)
	x.decision.Allow, x.decision.Reason = false, reason
	s.record(x, len(dst)-start, rcode)
	return dst
}

// reserved reports whether an allowed name may be asked for although it is in a
// part of the name space that is not the public one, or is the name under which
// clients look for a proxy. The rule that allows everything does not cover those.
func (s *Server) reserved(x *exchange) bool {
	if !special(x.name.String()) {
		return true
	}
	return x.decision.Rule != x.snapshot.Policy.DNS(s.probe).Rule
}

// special knows the special-use top-level domains (RFC 6761, 6762, 7686, 9476,
// .internal) and the reverse zones.
func special(name string) bool {
	if strings.HasPrefix(name, "wpad.") {
		return true
	}
	switch name[strings.LastIndexByte(name, '.')+1:] {
	case "alt", "arpa", "internal", "invalid", "local", "localhost", "onion":
		return true
	}
	return false
}

// record writes the decision to the audit log.
func (s *Server) record(x *exchange, size, rcode int) {
	e := audit.Event{
		Time:       x.started,
		Instance:   s.instance,
		Generation: x.snapshot.Generation,
		Conn:       x.conn(),
		Kind:       audit.KindDNS,
		Verdict:    audit.Deny,
		Reason:     string(x.decision.Reason),
		Rule:       x.decision.Rule,
		Host:       x.name.String(),
		Port:       53,
		Method:     x.typeName(),
		Status:     rcode,
		BytesUp:    int64(x.wireLen),
		BytesDown:  int64(size),
		DurationMS: float64(time.Since(x.started)) / float64(time.Millisecond),
	}
	if x.decision.Allow {
		e.Verdict = audit.Allow
	}
	if e.Host == "" {
		e.Host = x.text()
	}
	if x.upstream.IsValid() {
		e.Upstream = x.upstream.String()
	}
	s.audit.Record(e)
}

// conn identifies the query in the log: transport, client port and id.
func (x *exchange) conn() string {
	var b [16]byte
	out := append(b[:0], x.proto)
	out = strconv.AppendUint(out, uint64(x.client.Port()), 10)
	out = append(out, '-')
	out = strconv.AppendUint(out, uint64(x.id), 16)
	return string(out)
}
