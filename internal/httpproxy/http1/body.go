package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// ErrWrite wraps every error of the writing side of a copy; all other errors
// come from the reading side.
var ErrWrite = errors.New("writing body")

// copyBufferLen is the payload of a full TLS record: one read, one write.
const copyBufferLen = 16 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBufferLen]byte) }}

// CopyBody passes one message body on, byte for byte and as soon as bytes
// arrive, and returns how many bytes it wrote, framing included. A body that ends early is
// io.ErrUnexpectedEOF. Exactly the body is read from src, never a byte behind it.
func CopyBody(dst io.Writer, src *bufio.Reader, framing Framing, length int64, limits Limits) (int64, error) {
	switch framing {
	case LengthBody:
		n, err := copyLength(dst, src, length)
		return n, unexpected(err)
	case ChunkedBody:
		return copyChunked(dst, src, limits)
	case CloseBody:
		n, err := copyLength(dst, src, 1<<62)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return n, err
	}
	return 0, nil
}

// copyLength copies length bytes. The error is io.EOF where src ended cleanly
// before, which is for the caller to judge.
func copyLength(dst io.Writer, src *bufio.Reader, length int64) (written int64, err error) {
	buf := copyBuffers.Get().(*[copyBufferLen]byte)
	defer copyBuffers.Put(buf)
	for written < length {
		n, err := src.Read(buf[:min(copyBufferLen, length-written)])
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return written, fmt.Errorf("%w: %w", ErrWrite, err)
			}
			written += int64(n)
		}
		if err != nil && written < length {
			return written, err
		}
	}
	return written, nil
}

// copyChunked passes a chunked body on while it checks the coding.
//
// Invariant: no byte is written that was not read as part of a well-formed
// chunk or trailer before (TestChunked, B6).
func copyChunked(dst io.Writer, src *bufio.Reader, limits Limits) (written int64, err error) {
	write := func(p []byte) error {
		if len(p) == 0 {
			return nil
		}
		if _, err := dst.Write(p); err != nil {
			return fmt.Errorf("%w: %w", ErrWrite, err)
		}
		written += int64(len(p))
		return nil
	}
	var scan chunkScanner
	for {
		// The bulk of a large chunk goes round the small read buffer.
		if src.Buffered() == 0 && scan.state == inData && scan.remaining >= copyBufferLen {
			direct := scan.remaining - 1
			n, err := copyLength(dst, src, direct)
			written += n
			scan.remaining -= n
			if err != nil {
				return written, unexpected(err)
			}
		}
		if _, err := src.Peek(1); err != nil {
			return written, unexpected(err)
		}
		window, err := src.Peek(src.Buffered())
		if err != nil {
			return written, unexpected(err)
		}
		n, last, err := scan.scan(window)
		if err != nil {
			return written, errors.Join(write(window[:n]), err)
		}
		if last && len(window) >= n+2 && window[n] == '\r' && window[n+1] == '\n' {
			err := write(window[:n+2])
			_, _ = src.Discard(n + 2)
			return written, err
		}
		if err := write(window[:n]); err != nil {
			return written, err
		}
		_, _ = src.Discard(n)
		if last {
			trailer, err := readTrailer(src, limits)
			if err != nil {
				return written, unexpected(err)
			}
			return written, write(trailer)
		}
	}
}

// unexpected turns the clean end of a connection into what it is inside a body.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// maxTrailerBytes bounds a trailer section.
const maxTrailerBytes = 32 << 10

// readTrailer reads the trailer section with its last empty line.
func readTrailer(src *bufio.Reader, limits Limits) ([]byte, error) {
	raw, err := readHead(src, min(limits.Bytes, maxTrailerBytes), false)
	if err != nil {
		return nil, err
	}
	fields, err := parseFields(string(raw), limits.Fields)
	if err != nil {
		return nil, err
	}
	for _, f := range fields {
		if forbiddenTrailer(f.Name) {
			return nil, malformed("field %q in a trailer", f.Name)
		}
	}
	return raw, nil
}

// forbiddenTrailer names the fields that frame, route or authenticate a message
// (RFC 9110, 6.5.1): in a trailer they only serve to contradict the head.
func forbiddenTrailer(name string) bool {
	switch strings.ToLower(name) {
	case "host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer",
		"expect", "authorization", "cookie", "set-cookie", "content-encoding", "content-type", "content-range":
		return true
	}
	return false
}
