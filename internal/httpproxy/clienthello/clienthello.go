// Package clienthello reads the first message of a TLS connection without
// answering it, so that a name is judged before one byte is sent in either
// direction.
//
// It is stricter than TLS stacks are: what it accepts, crypto/tls reads the
// same way (the fuzz test holds the two together), and what is ambiguous is an
// error.
package clienthello

import (
	"encoding/binary"
	"errors"
	"io"
)

// MaxBytes bounds the bytes of one ClientHello with its record headers. Hellos
// with post-quantum key shares are near 2 KiB; a resumption ticket may add as
// much again.
const MaxBytes = 32 << 10

var (
	// ErrNotTLS means that the first bytes are no TLS handshake record.
	ErrNotTLS = errors.New("no TLS handshake record")
	// ErrMalformed means that the bytes are TLS but no well-formed ClientHello.
	ErrMalformed = errors.New("malformed ClientHello")
	// ErrTooLarge means that the ClientHello is longer than MaxBytes.
	ErrTooLarge = errors.New("ClientHello longer than the limit")
)

// Hello is what decides about a connection.
type Hello struct {
	// ServerName is the host_name of the server_name extension as the client
	// sent it, not normalised; "" when there is none.
	ServerName string
	// HasServerName tells an absent extension from an empty name.
	HasServerName bool
	// ALPN are the offered protocols in the client's order, nil without the extension.
	ALPN []string
}

// Offers reports whether the client offered the protocol by ALPN.
func (h Hello) Offers(protocol string) bool {
	for _, p := range h.ALPN {
		if p == protocol {
			return true
		}
	}
	return false
}

const (
	recordHeaderLen  = 5
	maxRecordPayload = 1 << 14
	typeHandshake    = 22
	typeClientHello  = 1

	extensionServerName = 0
	extensionALPN       = 16
)

// Read reads one ClientHello from r, however it is cut into records and
// segments. The returned raw bytes are all that were read, also with an error:
// a TLS stack that is to answer must be given them first. The caller sets a
// deadline on r.
func Read(r io.Reader) (hello Hello, raw []byte, err error) {
	raw = make([]byte, 0, 2048)
	var message []byte
	for {
		start := len(raw)
		if raw, err = readN(r, raw, recordHeaderLen); err != nil {
			if len(raw) > start && raw[0] != typeHandshake {
				return Hello{}, raw, ErrNotTLS
			}
			return Hello{}, raw, err
		}
		header := raw[start:]
		if header[0] != typeHandshake || header[1] != 3 {
			if start == 0 {
				return Hello{}, raw, ErrNotTLS
			}
			return Hello{}, raw, ErrMalformed
		}
		n := int(binary.BigEndian.Uint16(header[3:5]))
		if n == 0 || n > maxRecordPayload {
			return Hello{}, raw, ErrMalformed
		}
		if len(raw)+n > MaxBytes {
			return Hello{}, raw, ErrTooLarge
		}
		start = len(raw)
		if raw, err = readN(r, raw, n); err != nil {
			return Hello{}, raw, err
		}
		message = append(message, raw[start:]...)
		if message[0] != typeClientHello {
			return Hello{}, raw, ErrMalformed
		}
		if len(message) < 4 {
			continue
		}
		length := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
		if length > MaxBytes {
			return Hello{}, raw, ErrTooLarge
		}
		if len(message) < 4+length {
			continue
		}
		// RFC 8446, 5.1: nothing may follow the ClientHello in its record.
		if len(message) > 4+length {
			return Hello{}, raw, ErrMalformed
		}
		hello, err = parse(message[4:])
		return hello, raw, err
	}
}

// readN appends exactly n bytes of r to buf.
func readN(r io.Reader, buf []byte, n int) ([]byte, error) {
	start := len(buf)
	buf = append(buf, make([]byte, n)...)
	got, err := io.ReadFull(r, buf[start:])
	return buf[:start+got], err
}

// parse reads the body of a ClientHello (RFC 8446, 4.1.2).
func parse(body []byte) (Hello, error) {
	var hello Hello
	c := cursor(body)
	var sessionID, suites, compression, extensions cursor
	ok := c.skip(2+32) && c.vector8(&sessionID) && len(sessionID) <= 32 &&
		c.vector16(&suites) && len(suites) >= 2 && len(suites)%2 == 0 &&
		c.vector8(&compression) && len(compression) >= 1
	if !ok {
		return hello, ErrMalformed
	}
	if len(c) == 0 {
		return hello, nil
	}
	if !c.vector16(&extensions) || len(c) != 0 {
		return hello, ErrMalformed
	}
	seen := make(map[uint16]bool)
	for len(extensions) > 0 {
		var kind uint16
		var data cursor
		if !extensions.uint16(&kind) || !extensions.vector16(&data) || seen[kind] {
			return Hello{}, ErrMalformed
		}
		seen[kind] = true
		switch kind {
		case extensionServerName:
			if !hello.readServerName(data) {
				return Hello{}, ErrMalformed
			}
		case extensionALPN:
			if !hello.readALPN(data) {
				return Hello{}, ErrMalformed
			}
		}
	}
	return hello, nil
}

// readServerName accepts one entry of type host_name and nothing else.
//
// Invariant: a second name or another name type is an error, never skipped: two
// readers must not be able to pick different names (TestServerName, A11).
func (h *Hello) readServerName(data cursor) bool {
	var list, name cursor
	if !data.vector16(&list) || len(data) != 0 || len(list) == 0 || list[0] != 0 {
		return false
	}
	list = list[1:]
	if !list.vector16(&name) || len(list) != 0 || len(name) == 0 || len(name) > 255 {
		return false
	}
	h.ServerName, h.HasServerName = string(name), true
	return true
}

func (h *Hello) readALPN(data cursor) bool {
	var list cursor
	if !data.vector16(&list) || len(data) != 0 || len(list) == 0 {
		return false
	}
	for len(list) > 0 {
		var protocol cursor
		if !list.vector8(&protocol) || len(protocol) == 0 {
			return false
		}
		h.ALPN = append(h.ALPN, string(protocol))
	}
	return true
}

// cursor is the rest of a message that is still to be read.
type cursor []byte

func (c *cursor) skip(n int) bool {
	if len(*c) < n {
		return false
	}
	*c = (*c)[n:]
	return true
}

func (c *cursor) uint16(out *uint16) bool {
	if len(*c) < 2 {
		return false
	}
	*out = binary.BigEndian.Uint16(*c)
	*c = (*c)[2:]
	return true
}

func (c *cursor) take(n int, out *cursor) bool {
	if len(*c) < n {
		return false
	}
	*out, *c = (*c)[:n], (*c)[n:]
	return true
}

func (c *cursor) vector8(out *cursor) bool {
	if len(*c) < 1 {
		return false
	}
	n := int((*c)[0])
	*c = (*c)[1:]
	return c.take(n, out)
}

func (c *cursor) vector16(out *cursor) bool {
	var n uint16
	return c.uint16(&n) && c.take(int(n), out)
}
