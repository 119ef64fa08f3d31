package upstream_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/dnstest"
	"github.com/rootcell-ai/rootcell/internal/upstream"
)

var loopback = netip.MustParsePrefix("127.0.0.0/8")

func TestDialUsesTheAddressesThatWereChecked(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello")
			conn.Close()
		}
	}()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	// The name alternates between an address that may be dialled and one that may
	// not: rebinding.
	var mu sync.Mutex
	turn := 0
	a := dnstest.Start(t, func(q dnstest.Query) *dns.Msg {
		mu.Lock()
		defer mu.Unlock()
		turn++
		if turn%2 == 1 {
			return dnstest.Reply(q, "@ 0 IN A 127.0.0.1")
		}
		return dnstest.Reply(q, "@ 0 IN A 127.7.7.7")
	})
	r := newResolver(t, upstream.Config{AllowPrivate: []netip.Prefix{loopback}, Deny: []netip.Prefix{netip.MustParsePrefix("127.7.7.7/32")}}, a)
	host := name(t, "rebind.example.com")
	for i := range 4 {
		r.Flush()
		conn, err := r.Dial(t.Context(), host, port)
		if i%2 == 0 {
			if err != nil {
				t.Fatalf("dial %d: %v", i, err)
			}
			if got := conn.RemoteAddr().String(); got != l.Addr().String() {
				t.Errorf("dial %d went to %s", i, got)
			}
			conn.Close()
			continue
		}
		var special *upstream.SpecialAddressError
		if !errors.As(err, &special) || special.Class != upstream.ClassOwn {
			t.Errorf("dial %d: %v, want a special address", i, err)
		}
	}
	if n := len(a.Queries()); n != 4 {
		t.Errorf("%d lookups for 4 dials", n)
	}
}

func TestDialTriesEveryAddress(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.3:0")
	if err != nil {
		t.Skipf("listening on a second loopback address: %v", err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	a := dnstest.Start(t, func(q dnstest.Query) *dns.Msg {
		return dnstest.Reply(q, "@ 60 IN A 127.0.0.1", "@ 60 IN A 127.0.0.2", "@ 60 IN A 127.0.0.3")
	})
	r := newResolver(t, upstream.Config{AllowPrivate: []netip.Prefix{loopback}}, a)
	conn, err := r.Dial(t.Context(), name(t, "many.example.com"), port)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	l.Close()
	_, err = r.Dial(t.Context(), name(t, "many.example.com"), port)
	var op *net.OpError
	if !errors.As(err, &op) || !strings.Contains(err.Error(), `"many.example.com"`) {
		t.Errorf("with nobody listening: %v", err)
	}
	if _, ok := r.Cached(name(t, "many.example.com"), time.Now()); ok {
		t.Error("an answer that led nowhere is kept")
	}
}

func TestDialDoesNotEndOnThisMachine(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		own, ok := a.(*net.IPNet)
		if !ok || own.IP.IsLoopback() || own.IP.To4() == nil {
			continue
		}
		l, err := net.Listen("tcp4", net.JoinHostPort(own.IP.String(), "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		authority := dnstest.Start(t, func(q dnstest.Query) *dns.Msg { return dnstest.Reply(q, "@ 60 IN A "+own.IP.String()) })
		r := newResolver(t, upstream.Config{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}, authority)
		conn, err := r.Dial(t.Context(), name(t, "self.example.com"), uint16(l.Addr().(*net.TCPAddr).Port))
		if err == nil {
			conn.Close()
			t.Errorf("%s is dialed", own.IP)
		} else if !strings.Contains(err.Error(), "own address") {
			t.Errorf("dialing %s: %v", own.IP, err)
		}
		return
	}
	t.Skip("this machine has no address beside loopback")
}
