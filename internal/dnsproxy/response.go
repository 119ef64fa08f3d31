package dnsproxy

import (
	"encoding/binary"
	"time"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/upstream"
)

// extended is an Extended DNS Error (RFC 8914).
type extended struct {
	code uint16
	text string
}

// maxExtended bounds the text, so that a refusal fits into 512 bytes with the
// longest name.
const maxExtended = 200

// header appends the header and the question of a response to q.
func (q *query) header(dst []byte, rcode int, records uint16) []byte {
	flags := uint16(0x8080) | uint16(rcode&15) // QR, RA
	if q.rd {
		flags |= 0x0100
	}
	dst = binary.BigEndian.AppendUint16(dst, q.id)
	dst = binary.BigEndian.AppendUint16(dst, flags)
	questions := uint16(0)
	if len(q.question) > 0 {
		questions = 1
	}
	dst = binary.BigEndian.AppendUint16(dst, questions)
	dst = binary.BigEndian.AppendUint16(dst, records)
	additional := uint32(0)
	if q.edns {
		additional = 1
	}
	dst = binary.BigEndian.AppendUint32(dst, additional) // no authority section
	return append(dst, q.question...)
}

// opt appends the OPT record when the client sent one. Its flags are zero: there
// is no DNSSEC on offer.
func (q *query) opt(dst []byte, rcode int, ext *extended) []byte {
	if !q.edns {
		return dst
	}
	dst = append(dst, 0, 0, byte(dns.TypeOPT), maxUDP>>8, maxUDP&0xff, byte(rcode>>4), 0, 0, 0)
	if ext == nil {
		return append(dst, 0, 0)
	}
	text := ext.text[:min(len(ext.text), maxExtended)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(6+len(text)))
	dst = binary.BigEndian.AppendUint16(dst, dns.EDNS0EDE)
	dst = binary.BigEndian.AppendUint16(dst, uint16(2+len(text)))
	dst = binary.BigEndian.AppendUint16(dst, ext.code)
	return append(dst, text...)
}

// plain appends a response without records.
func (q *query) plain(dst []byte, rcode int, ext *extended) []byte {
	return q.opt(q.header(dst, rcode, 0), rcode, ext)
}

// answer appends a response with the records of a. What is too long for limit
// bytes becomes an empty response that sends the client to TCP.
func (q *query) answer(dst []byte, a *upstream.Answer, limit int, now time.Time) []byte {
	size := headerLen + len(q.question) + a.Size()
	if q.edns {
		size += optLen
	}
	start := len(dst)
	if size > limit {
		dst = q.plain(dst, a.Rcode, nil)
		dst[start+2] |= 2 // TC
		return dst
	}
	dst = q.header(dst, a.Rcode, a.Records())
	// Offsets in a's records count from the start of the message.
	dst = a.AppendRecords(dst, now)
	return q.opt(dst, a.Rcode, nil)
}
