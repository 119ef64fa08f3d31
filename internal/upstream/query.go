package upstream

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"strings"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

const (
	headerLen = 12
	// maxUDP is the response size offered to resolvers: what passes any path in one
	// piece (DNS flag day 2020).
	maxUDP = 1232
)

// query is one question on its way. It is built here from the normalised name and
// nothing else.
//
// Invariant: no byte of a client's query is in it (TestQueriesAreRebuilt).
type query struct {
	id       uint16
	wire     []byte
	question []byte // the part of wire that a response must repeat
	edns     bool
	reply    chan reply // capacity 1
}

type reply struct {
	wire []byte
	err  error
}

// random fills b from the system's generator, which does not fail (Go 1.24).
func random(b []byte) { _, _ = rand.Read(b) }

// newQuery builds the question for the IPv4 addresses of name with a random id
// and, when mixed, letters in random case (draft-vixie-dnsext-dns0x20): what a
// forger has to guess besides the port.
func newQuery(name hostname.Name, mixed, edns bool) *query {
	var dice [2 + (hostname.MaxLength+7)/8]byte
	random(dice[:])
	q := &query{id: binary.BigEndian.Uint16(dice[:]), edns: edns, reply: make(chan reply, 1)}
	text := name.String()
	w := make([]byte, headerLen, headerLen+len(text)+2+4+11)
	binary.BigEndian.PutUint16(w, q.id)
	w[2] = 1 // RD
	w[5] = 1 // one question
	i := 0
	for label := range strings.SplitSeq(text, ".") {
		w = append(w, byte(len(label)))
		for j := range len(label) {
			c := label[j]
			if mixed && 'a' <= c && c <= 'z' && dice[2+i/8]>>(i%8)&1 == 1 {
				c -= 'a' - 'A'
			}
			w = append(w, c)
			i++
		}
	}
	w = append(w, 0, 0, byte(dns.TypeA), 0, byte(dns.ClassINET))
	q.question = w[headerLen:]
	if edns {
		w[11] = 1 // one additional record: OPT with nothing in it
		w = append(w, 0, 0, byte(dns.TypeOPT), maxUDP>>8, maxUDP&0xff, 0, 0, 0, 0, 0, 0)
	}
	q.wire = w
	return q
}

// setID gives the query another id.
func (q *query) setID(id uint16) {
	q.id = id
	binary.BigEndian.PutUint16(q.wire, id)
}

// matches reports whether wire is a response to q, and exact whether it repeats
// the name in the very letters that were sent.
func (q *query) matches(wire []byte) bool {
	if len(wire) < headerLen+len(q.question) || binary.BigEndian.Uint16(wire) != q.id {
		return false
	}
	const qrAndOpcode = 0xf8
	if wire[2]&qrAndOpcode != 0x80 || binary.BigEndian.Uint16(wire[4:]) != 1 {
		return false
	}
	got := wire[headerLen : headerLen+len(q.question)]
	name := len(q.question) - 4
	// Folding cannot confuse length bytes with letters: they are below 64.
	return bytes.EqualFold(got[:name], q.question[:name]) && bytes.Equal(got[name:], q.question[name:])
}

func (q *query) exact(wire []byte) bool {
	return bytes.Equal(wire[headerLen:headerLen+len(q.question)], q.question)
}

// flagTC, in the third byte of a message, says that it is cut.
const flagTC = 2

func truncated(wire []byte) bool { return wire[2]&flagTC != 0 }

// rejectsEDNS reports whether a response says that it is the OPT record which the
// resolver did not understand (RFC 6891 section 7).
func rejectsEDNS(wire []byte) bool {
	rcode := int(wire[3] & 15)
	return rcode == dns.RcodeFormatError || rcode == dns.RcodeNotImplemented
}
