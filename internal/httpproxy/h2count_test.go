package httpproxy

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2"
)

func TestStreamsAreCountedHoweverTheyArrive(t *testing.T) {
	var wire bytes.Buffer
	wire.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&wire, nil)
	_ = f.WriteSettings()
	for _, id := range []uint32{1, 3, 5} {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x82}, EndHeaders: true})
		_ = f.WriteData(id, false, make([]byte, 300))
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true}) // trailers
	}
	for _, size := range []int{1, 2, 9, 10, 1000, wire.Len()} {
		c := &streamCounter{skip: len(http2.ClientPreface)}
		for rest := wire.Bytes(); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			c.count(rest[:min(size, len(rest))])
		}
		if c.opened.Load() != 3 {
			t.Errorf("in pieces of %d bytes: %d streams, want 3", size, c.opened.Load())
		}
	}
}
