package upstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

const (
	rcodeSuccess  = dns.RcodeSuccess
	rcodeServFail = dns.RcodeServerFailure
	rcodeNXDomain = dns.RcodeNameError
)

// How long answers are kept, whatever they say themselves.
const (
	minTTL      = 5 * time.Second
	minNegative = time.Second
	maxTTL      = time.Hour
	maxNegative = 5 * time.Minute
	noSOA       = 30 * time.Second // a negative answer that does not say for how long
	servFailTTL = 2 * time.Second  // keeps a broken zone from being asked at full rate
)

const (
	maxChain = 12 // aliases followed within one answer
	maxAddrs = 64 // addresses kept of one answer
)

// Answer is what a resolver said about the IPv4 addresses of a name, checked and
// packed. It is immutable and shared.
type Answer struct {
	// Rcode is the response code: 0 (also when there is no address), 2 or 3.
	Rcode int
	// Addrs are the addresses that may be answered and dialled.
	Addrs []netip.Addr
	// Special is the first address that may not, and SpecialClass its class; the
	// zero Addr when there was none.
	Special      netip.Addr
	SpecialClass string
	// Server is the resolver that was asked.
	Server netip.AddrPort

	expires time.Time
	records []byte   // answer section, for a question that begins at offset 12
	count   uint16   // records in it
	ttlAt   []uint16 // offsets of their TTLs
}

// Records returns the number of resource records that AppendRecords adds.
func (a *Answer) Records() uint16 { return a.count }

// Size returns the number of bytes that AppendRecords adds.
func (a *Answer) Size() int { return len(a.records) }

// AppendRecords appends the answer section in wire form to a message that holds
// a header and, at offset 12, the one question for the name that was looked up.
// The TTLs are what is left at the given time.
func (a *Answer) AppendRecords(msg []byte, now time.Time) []byte {
	base := len(msg)
	msg = append(msg, a.records...)
	left := max(0, a.expires.Sub(now))
	ttl := uint32((left + time.Second - 1) / time.Second)
	for _, off := range a.ttlAt {
		binary.BigEndian.PutUint32(msg[base+int(off):], ttl)
	}
	return msg
}

// problem is the error that stands for an answer without usable addresses.
func (a *Answer) problem(name hostname.Name) error {
	switch {
	case len(a.Addrs) > 0:
		return nil
	case a.Special.IsValid():
		return &SpecialAddressError{Name: name, Addr: a.Special, Class: a.SpecialClass}
	}
	return &NotFoundError{Name: name, Rcode: a.Rcode}
}

// readAnswer makes an Answer of a response whose header and question have been
// held against the query. Of the answer section only the chain of aliases that
// starts at the name counts, and the addresses at its end.
func readAnswer(wire []byte, name hostname.Name, f *filter, now time.Time) (*Answer, error) {
	var m dns.Msg
	if err := m.Unpack(wire); err != nil {
		return nil, fmt.Errorf("reading response: %w", err)
	}
	switch m.Rcode {
	case rcodeSuccess, rcodeNXDomain, rcodeServFail:
	default:
		return nil, fmt.Errorf("resolver answers %s", dns.RcodeToString[m.Rcode])
	}
	a := &Answer{Rcode: m.Rcode}
	if m.Rcode == rcodeServFail {
		a.expires = now.Add(servFailTTL)
		return a, nil
	}
	chain, ttl, err := a.follow(m.Answer, name, f)
	if err != nil {
		return nil, err
	}
	if len(a.Addrs) == 0 {
		ttl = max(min(ttl, negativeTTL(m.Ns)), minNegative)
	} else {
		a.Rcode = rcodeSuccess
		ttl = max(ttl, minTTL)
	}
	a.expires = now.Add(ttl)
	a.pack(name, chain)
	return a, nil
}

// follow collects the aliases from name on and the addresses at their end, and
// returns the aliases and the shortest TTL it met.
func (a *Answer) follow(records []dns.RR, name hostname.Name, f *filter) (chain []string, ttl time.Duration, err error) {
	ttl = maxTTL
	owner := name.String() + "."
	for {
		target := ""
		for _, rr := range records {
			h := rr.Header()
			if h.Class != dns.ClassINET || !strings.EqualFold(h.Name, owner) {
				continue
			}
			switch rr := rr.(type) {
			case *dns.CNAME:
				target = strings.ToLower(rr.Target)
			case *dns.A:
				addr, ok := netip.AddrFromSlice(rr.A.To4())
				if !ok || len(a.Addrs) == maxAddrs {
					continue
				}
				a.add(addr, f)
			default:
				continue
			}
			ttl = min(ttl, time.Duration(h.Ttl)*time.Second)
		}
		if target == "" {
			return chain, ttl, nil
		}
		if chain = append(chain, target); len(chain) > maxChain {
			return nil, 0, errors.New("response has too long a chain of aliases")
		}
		owner = target
	}
}

// add keeps an address, or remembers that it may not be used.
//
// Invariant: no special address is ever part of an Answer's Addrs or records
// (TestSpecialAddressesAreDropped, FuzzReadAnswer).
func (a *Answer) add(addr netip.Addr, f *filter) {
	if class, bad := f.check(addr); bad {
		if !a.Special.IsValid() {
			a.Special, a.SpecialClass = addr, class
		}
		return
	}
	a.Addrs = append(a.Addrs, addr)
}

// negativeTTL is how long the absence of an answer lasts (RFC 2308 section 5).
func negativeTTL(authority []dns.RR) time.Duration {
	for _, rr := range authority {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(time.Duration(min(soa.Minttl, soa.Hdr.Ttl))*time.Second, maxNegative)
		}
	}
	return noSOA
}

// pack writes the answer section: the aliases in their order, then the addresses.
// When an alias is not an ordinary host name the client sees none of them and the
// addresses belong to the name it asked for.
func (a *Answer) pack(name hostname.Name, chain []string) {
	if len(a.Addrs) == 0 {
		return
	}
	for _, alias := range chain {
		if !ordinary(alias) {
			chain = nil
			break
		}
	}
	const header = 12
	question := len(name.String()) + 2 + 4
	owner := uint16(header)
	for _, alias := range chain {
		a.startRecord(owner, dns.TypeCNAME, len(alias)+1)
		owner = uint16(header + question + len(a.records))
		for label := range strings.SplitSeq(strings.TrimSuffix(alias, "."), ".") {
			a.records = append(a.records, byte(len(label)))
			a.records = append(a.records, label...)
		}
		a.records = append(a.records, 0)
	}
	for _, addr := range a.Addrs {
		a.startRecord(owner, dns.TypeA, 4)
		b := addr.As4()
		a.records = append(a.records, b[:]...)
	}
}

// startRecord appends a record up to its data. The owner is the offset of a name
// earlier in the message.
func (a *Answer) startRecord(owner, rrtype uint16, length int) {
	b := binary.BigEndian.AppendUint16(a.records, 0xc000|owner)
	b = binary.BigEndian.AppendUint16(b, rrtype)
	b = binary.BigEndian.AppendUint16(b, dns.ClassINET)
	a.ttlAt = append(a.ttlAt, uint16(len(b)))
	b = append(b, 0, 0, 0, 0)
	a.records = binary.BigEndian.AppendUint16(b, uint16(length))
	a.count++
}

// ordinary reports whether a name in presentation form with its final dot has
// only letters, digits, hyphens and underscores in labels of legal length.
func ordinary(name string) bool {
	rest, dotted := strings.CutSuffix(name, ".")
	if !dotted || rest == "" || len(rest) > hostname.MaxLength {
		return false
	}
	for label := range strings.SplitSeq(rest, ".") {
		if label == "" || len(label) > hostname.MaxLabel || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
