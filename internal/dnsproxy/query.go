package dnsproxy

import (
	"encoding/binary"
	"strconv"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

const (
	headerLen = 12
	optLen    = 11 // an OPT record without options
	maxName   = 255
	minUDP    = 512  // what every client takes (RFC 1035)
	maxUDP    = 1232 // what passes any path in one piece (DNS flag day 2020)
)

// query is what counts in a client's message. Its slices point into the message.
type query struct {
	id       uint16
	rd       bool
	question []byte // name, type and class as they were sent; empty before they were read
	name     []byte // the name's labels in wire form with the final zero
	qtype    uint16
	class    uint16
	edns     bool
	version  uint8
	size     int // the largest response the client takes over UDP
	wireLen  int
}

// verdict of reading a message.
type reading int

const (
	readOK     reading = iota
	readDrop           // not a query: no response, or two servers could answer each other for ever
	readBroken         // FORMERR
	readOpcode         // a query of another kind: update, notify, …
)

// readQuery reads a message. It takes exactly one question, uncompressed, and at
// most one further record, which must be OPT; whatever OPT holds beside version
// and size is not looked at.
//
// Invariant: it neither panics nor reads past the message, whatever the bytes
// (FuzzQuery).
func readQuery(msg []byte, q *query) reading {
	*q = query{size: minUDP, wireLen: len(msg)}
	if len(msg) < headerLen {
		return readDrop
	}
	q.id = binary.BigEndian.Uint16(msg)
	flags := binary.BigEndian.Uint16(msg[2:])
	const qr, opcode, rd = 0x8000, 0x7800, 0x0100
	if flags&qr != 0 {
		return readDrop
	}
	q.rd = flags&rd != 0
	if flags&opcode != 0 {
		return readOpcode
	}
	additional := binary.BigEndian.Uint16(msg[10:])
	if binary.BigEndian.Uint16(msg[4:]) != 1 || binary.BigEndian.Uint32(msg[6:]) != 0 || additional > 1 {
		return readBroken
	}
	rest := msg[headerLen:]
	n := nameLen(rest)
	if n == 0 || len(rest) < n+4 {
		return readBroken
	}
	q.name, q.question = rest[:n], rest[:n+4]
	q.qtype = binary.BigEndian.Uint16(rest[n:])
	q.class = binary.BigEndian.Uint16(rest[n+2:])
	rest = rest[n+4:]
	if additional == 1 {
		if len(rest) < optLen || rest[0] != 0 || binary.BigEndian.Uint16(rest[1:]) != dns.TypeOPT {
			return readBroken
		}
		q.edns = true
		q.size = min(max(int(binary.BigEndian.Uint16(rest[3:])), minUDP), maxUDP)
		q.version = rest[6]
		length := int(binary.BigEndian.Uint16(rest[9:]))
		if rest = rest[optLen:]; len(rest) < length {
			return readBroken
		}
		rest = rest[length:]
	}
	if len(rest) != 0 {
		return readBroken
	}
	return readOK
}

// nameLen returns the length of the uncompressed name at the start of b, with its
// final zero, or 0 when there is none.
func nameLen(b []byte) int {
	for i := 0; i < len(b) && i < maxName; {
		n := int(b[i])
		if n == 0 {
			return i + 1
		}
		if n > hostname.MaxLabel {
			return 0 // a compression pointer: nothing before a question to point to
		}
		i += n + 1
	}
	return 0
}

// host returns the normalised name of the question. ok is false when it is not a
// host name.
//
// Invariant: a dot inside a label never becomes a dot between labels: only
// letters, digits and hyphens are taken from the wire (TestOddNamesAreRefused).
func (q *query) host() (name hostname.Name, ok bool) {
	var text [maxName]byte
	n := 0
	for rest := q.name; rest[0] != 0; {
		label := rest[1 : 1+rest[0]]
		rest = rest[1+rest[0]:]
		for _, c := range label {
			switch {
			case 'A' <= c && c <= 'Z':
				c += 'a' - 'A'
			case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-':
			default:
				return hostname.Name{}, false
			}
			text[n] = c
			n++
		}
		text[n] = '.'
		n++
	}
	if n == 0 {
		return hostname.Name{}, false
	}
	name, err := hostname.Parse(string(text[:n-1]))
	return name, err == nil
}

// text is the name as it goes to the log when it is not a host name.
func (q *query) text() string {
	if len(q.name) == 0 {
		return ""
	}
	s, _, err := dns.UnpackDomainName(q.name, 0)
	if err != nil {
		return ""
	}
	return s
}

// typeName is the query type as dig prints it.
func (q *query) typeName() string {
	switch {
	case len(q.question) == 0:
		return ""
	case q.qtype == dns.TypeA:
		return "A"
	case q.qtype == dns.TypeAAAA:
		return "AAAA"
	}
	if s, known := dns.TypeToString[q.qtype]; known {
		return s
	}
	return "TYPE" + strconv.Itoa(int(q.qtype))
}
