package http1

// chunkState is the place in the chunked coding (RFC 9112, 7.1).
type chunkState uint8

const (
	inSizeStart chunkState = iota // the first digit of a chunk size
	inSize                        // its other digits
	inExtension                   // after the semicolon
	inSizeLF                      // the line feed of the size line
	inData
	inDataCR
	inDataLF
)

const (
	maxSizeDigits = 15  // so that a size fits int64
	maxExtension  = 256 // bytes of chunk extensions a chunk
)

// chunkScanner checks the chunked coding as its bytes pass.
type chunkScanner struct {
	state     chunkState
	digits    int
	extension int
	remaining int64 // of the present chunk
}

// scan reads from p and returns how many of its bytes are well-formed. last
// means that they end with the line of the last chunk: the trailer section follows.
func (s *chunkScanner) scan(p []byte) (n int, last bool, err error) {
	for n < len(p) {
		c := p[n]
		switch s.state {
		case inSizeStart, inSize:
			digit, ok := hexDigit(c)
			switch {
			case ok && s.digits < maxSizeDigits:
				s.remaining = s.remaining<<4 | digit
				s.digits++
				s.state = inSize
			case s.state == inSize && c == ';':
				s.state, s.extension = inExtension, 0
			case s.state == inSize && c == '\r':
				s.state = inSizeLF
			default:
				return n, false, malformed("chunk size")
			}
		case inExtension:
			s.extension++
			switch {
			case c == '\r':
				s.state = inSizeLF
			case s.extension > maxExtension || c < ' ' && c != '\t' || c >= 0x7f:
				return n, false, malformed("chunk extension")
			}
		case inSizeLF:
			if c != '\n' {
				return n, false, malformed("chunk size line without line feed")
			}
			if s.remaining == 0 {
				return n + 1, true, nil
			}
			s.state = inData
		case inData:
			take := min(int64(len(p)-n), s.remaining)
			n += int(take)
			if s.remaining -= take; s.remaining == 0 {
				s.state = inDataCR
			}
			continue
		case inDataCR:
			if c != '\r' {
				return n, false, malformed("chunk longer than its size")
			}
			s.state = inDataLF
		case inDataLF:
			if c != '\n' {
				return n, false, malformed("chunk end without line feed")
			}
			s.state, s.digits = inSizeStart, 0
		}
		n++
	}
	return n, false, nil
}

func hexDigit(c byte) (int64, bool) {
	switch {
	case c >= '0' && c <= '9':
		return int64(c - '0'), true
	case c >= 'a' && c <= 'f':
		return int64(c-'a') + 10, true
	case c >= 'A' && c <= 'F':
		return int64(c-'A') + 10, true
	}
	return 0, false
}
