package httpproxy

import (
	"time"

	"github.com/rootcell-ai/rootcell/internal/httpproxy/http1"
)

// Limits bounds what clients and servers can make the proxy hold. A zero field means
// its default.
type Limits struct {
	Conns         int // client connections at once; 2048
	HeaderBytes   int // of one HTTP/1.1 head; 256 KiB
	HeaderFields  int // of one HTTP/1.1 head; 4096
	HeaderBytesH2 int // of one HTTP/2 header list; 1 MiB
	Streams       int // of one HTTP/2 connection at once; 250
	IdleUpstream  int // idle HTTP/1.1 connections kept for one host; 16

	// DenialLeavesPerSecond is how many explained handshakes for names that are not
	// allowed may begin in a second; others are reset. 50.
	DenialLeavesPerSecond int

	Handshake time.Duration // for the ClientHello, and again for the rest; 10 s
	Header    time.Duration // from the first byte of a head to its last; 15 s
	Idle      time.Duration // between requests; 3 min
	Stall     time.Duration // without progress inside a request body or a write; 5 min
	Dial      time.Duration // to resolve, connect and handshake upstream; 15 s
}

func (l Limits) withDefaults() Limits {
	number := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	number(&l.Conns, 2048)
	number(&l.HeaderBytes, 256<<10)
	number(&l.HeaderFields, 4096)
	number(&l.HeaderBytesH2, 1<<20)
	number(&l.Streams, 250)
	number(&l.IdleUpstream, 16)
	number(&l.DenialLeavesPerSecond, 50)
	period := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	period(&l.Handshake, 10*time.Second)
	period(&l.Header, 15*time.Second)
	period(&l.Idle, 3*time.Minute)
	period(&l.Stall, 5*time.Minute)
	period(&l.Dial, 15*time.Second)
	return l
}

func (l Limits) head() http1.Limits {
	return http1.Limits{Bytes: l.HeaderBytes, Fields: l.HeaderFields}
}
