package httpproxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/ca"
	"github.com/rootcell-ai/rootcell/internal/hostname"
)

// wire counts what is written to it, and is held up while held is locked.
type wire struct {
	net.Conn
	held   sync.Mutex
	writes atomic.Int32
}

func (w *wire) Write(p []byte) (int, error) {
	w.held.Lock()
	defer w.held.Unlock()
	w.writes.Add(1)
	return w.Conn.Write(p)
}

// batchPair is a batchConn whose wire is held up, with the far end of its TLS.
func batchPair(t *testing.T) (*batchConn, *tls.Conn, *wire) {
	t.Helper()
	certPEM, keyPEM, err := ca.Create("test")
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ca.Load(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	name, err := hostname.Parse("a.example")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := authority.Leaf(name)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	w := &wire{Conn: near}
	client := tls.Client(w, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{*leaf}, SessionTicketsDisabled: true})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.held.Lock()
	w.writes.Store(0)
	return newBatchConn(client, near, time.Minute), server, w
}

func TestBatchGathersWhileAWriteIsUnderWay(t *testing.T) {
	b, far, w := batchPair(t)
	var want bytes.Buffer
	for i := range 500 {
		p := bytes.Repeat([]byte{byte(i)}, 20)
		want.Write(p)
		if n, err := b.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	w.held.Unlock()
	got := make([]byte, want.Len())
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Fatalf("other bytes than were written: %v", err)
	}
	if n := w.writes.Load(); n > 2 {
		t.Errorf("%d writes for what fits into two", n)
	}
}

func TestBatchCloseSendsWhatWaits(t *testing.T) {
	b, far, w := batchPair(t)
	_, _ = b.Write([]byte("last words"))
	w.held.Unlock()
	got := make(chan []byte, 1)
	go func() {
		text, _ := io.ReadAll(far)
		got <- text
	}()
	_ = b.Close()
	if text := <-got; string(text) != "last words" {
		t.Errorf("the far end read %q", text)
	}
	if _, err := b.Write([]byte("x")); err == nil {
		t.Error("a closed connection takes bytes")
	}
}

func TestBatchEndsWithAWriteThatFails(t *testing.T) {
	b, far, w := batchPair(t)
	_ = far.NetConn().Close()
	w.held.Unlock()
	for range 4 { // a batch and its successor are taken before the error shows
		if _, err := b.Write(make([]byte, batchLen)); err != nil {
			return
		}
	}
	t.Error("no error")
}
