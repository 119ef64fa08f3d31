//go:build linux

package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// dialTLS connects from the agent. Certificates are not verified: the same for every candidate, and not what is measured. The
// groups offered are those that all of them know; with ML-KEM as well, ours and the relay would do more than the others.
func (b *bench) dialTLS(c *candidate, host, addr string) (*tls.Conn, error) {
	raw, err := b.lab.Agent.Dial(context.Background(), "tcp", addr+":443")
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", c.name, err)
	}
	conn := tls.Client(raw, &tls.Config{ServerName: host, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"},
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256}})
	_ = raw.SetDeadline(time.Now().Add(time.Minute))
	if err := conn.Handshake(); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("handshake with %s: %w", c.name, err)
	}
	return conn, nil
}

// get makes one request and reads the answer whole.
func get(conn io.Writer, r *bufio.Reader, host, path string) error {
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", path, host); err != nil {
		return err
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

// handshakes opens new connections with one request each for a time and returns how many.
func (b *bench) handshakes(t *testing.T, c *candidate, clients int, limit time.Duration) int64 {
	var n atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(limit)
	for range clients {
		wg.Go(func() {
			for time.Now().Before(end) {
				conn, err := b.dialTLS(c, c.web(), c.webAddr())
				if err == nil {
					err = get(conn, bufio.NewReader(conn), c.web(), "/small")
					_ = conn.Close()
				}
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return n.Load()
}

// sequential returns how long requests on one kept connection took, sorted, in microseconds.
func (b *bench) sequential(t *testing.T, c *candidate, n int) []float64 {
	conn, err := b.dialTLS(c, c.web(), c.webAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	var times []float64
	for i := range n + 20 {
		began := time.Now()
		if err := get(conn, r, c.web(), "/small"); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if i >= 20 {
			times = append(times, float64(time.Since(began).Nanoseconds())/1000)
		}
	}
	slices.Sort(times)
	return times
}

// eventDelays returns how late events arrive, in microseconds.
func (b *bench) eventDelays(t *testing.T, c *candidate) []float64 {
	conn, err := b.dialTLS(c, c.origin(), c.originAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: %s\r\n\r\n", c.origin()); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var delays []float64
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		text, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		sent, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		delays = append(delays, float64(time.Now().UnixNano()-sent)/1000)
	}
	if len(delays) != events {
		t.Fatalf("%s: %d events of %d", c.name, len(delays), events)
	}
	return delays
}

// tunnel sets up an SSH tunnel through a CONNECT proxy and pulls bulk through it.
func (b *bench) tunnel(t *testing.T, proxy, target string, size int64) time.Duration {
	conn, err := b.lab.Agent.Dial(context.Background(), "tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	_, _ = fmt.Fprintf(conn, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target)
	r := bufio.NewReaderSize(conn, 64<<10)
	res, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("CONNECT %s: %v %v", target, res, err)
	}
	_, _ = io.WriteString(conn, "SSH-2.0-client\r\n")
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, _ = fmt.Fprintf(conn, "%d\n", size)
	if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 256<<10)); err != nil || n != size {
		t.Fatalf("pulled %d bytes of %d through %s: %v", n, size, proxy, err)
	}
	return time.Since(began)
}
