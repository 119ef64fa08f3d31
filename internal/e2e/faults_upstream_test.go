//go:build linux

package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

func TestFaultNoDescriptors(t *testing.T) {
	l := newLab(t, netlab.Options{Descriptors: 60})
	stop := l.bystander(t)
	var conns []net.Conn
	for range 200 {
		for _, addr := range []string{netlab.InternetAddr + ":443", netlab.FirewallAddr + ":8080"} {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			if c, err := l.Agent.Dial(ctx, "tcp4", addr); err == nil {
				conns = append(conns, c)
			}
			cancel()
		}
	}
	figure(t, "connections against 60 descriptors", float64(len(conns)), "")
	// Nothing opens: with no descriptor left a denied host is denied as before.
	l.world.Forget()
	if r := l.agent(t, "curl", "-sS", "-m", "2", "--cacert", l.daemon.CAFile, "--resolve", "no.other.example:443:"+netlab.InternetAddr, "https://no.other.example/"); strings.Contains(r.stdout, "no.other.example GET") {
		t.Errorf("got %+v", r)
	}
	if seen := l.world.Sightings("no.other"); len(seen) > 0 {
		t.Errorf("the far side saw %v", seen)
	}
	stop()
	for _, c := range conns {
		_ = c.Close()
	}
	start := time.Now()
	netlab.Await(t, 12*time.Second, "the daemon to accept again", func() bool {
		return l.agent(t, "curl", "-sS", "-m", "2", "--cacert", l.daemon.CAFile, "-o", "/dev/null", "-w", "%{http_code}", "https://ok.test.example/").stdout == "200"
	})
	figure(t, "time to serve again", time.Since(start).Seconds(), "s")
}

// broken is a server that takes TCP connections and never says a word of TLS.
func (l *lab) broken(t *testing.T, name string) {
	t.Helper()
	local, _ := l.place(t, name, 443)
	ln, err := l.Internet.Listen("tcp4", "0.0.0.0:"+local)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
}

func TestFaultUpstream(t *testing.T) {
	l := newLab(t, netlab.Options{})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	reset := func(w http.ResponseWriter) {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if tcp, ok := c.(interface{ NetConn() net.Conn }); ok {
				_ = tcp.NetConn().(*net.TCPConn).SetLinger(0)
				_ = tcp.NetConn().Close()
			}
		}
	}
	l.world.Host(t, "stall.test.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	l.world.Host(t, "reset.test.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/middle" {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "partial")
			_ = http.NewResponseController(w).Flush()
		}
		reset(w)
	}))
	l.broken(t, "mute.test.example")
	stop := l.bystander(t)

	// A hundred requests hang at their server the whole time.
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer func() { cancel(); wg.Wait() }()
	stalled := l.client(t)
	stalled.Timeout = 0
	for range 100 {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://stall.test.example/", nil)
			if res, err := stalled.Do(req); err == nil {
				_ = res.Body.Close()
				t.Errorf("a stalled server's request ended with %s", res.Status)
			}
		})
	}
	netlab.Await(t, 10*time.Second, "the requests to hang", func() bool { return len(l.world.Sightings("https stall")) == 100 })
	t.Run("reset before the answer", func(t *testing.T) {
		r := l.curl(t, "--http1.1", "-o", "/dev/null", "-w", "%{http_code}", "https://reset.test.example/")
		if r.stdout != "502" {
			t.Errorf("got %+v", r)
		}
		l.daemon.AwaitAudit(t, map[string]any{"host": "reset.test.example", "status": 502})
	})
	t.Run("reset in the middle of the answer", func(t *testing.T) {
		r := l.curl(t, "--http1.1", "-w", "%{http_code}", "https://reset.test.example/middle")
		if r.code == 0 || !strings.Contains(r.stdout, "partial") {
			t.Errorf("the client took a part for the whole: %+v", r)
		}
	})
	t.Run("a server that says nothing", func(t *testing.T) {
		start := time.Now()
		r := l.agent(t, "curl", "-sS", "-m", "19", "--cacert", l.daemon.CAFile, "-o", "/dev/null", "-w", "%{http_code}", "https://mute.test.example/")
		if r.stdout != "502" && r.stdout != "504" {
			t.Errorf("got %+v", r)
		}
		figure(t, "time until a mute server is given up", time.Since(start).Seconds(), "s")
	})
	stop()
	figure(t, "requests that hung meanwhile", 100, "")
	l.checkMemory(t, memoryLimit)
}

func TestFaultKilledUnderLoad(t *testing.T) {
	l := newLab(t, netlab.Options{HTTPS: "ok.test.example\n", DNS: "test.example\n", SSH: "\n"})
	var good, bad, opened atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 24 {
		client := l.client(t)
		client.Timeout = 3 * time.Second
		host := "ok"
		if i%4 == 0 {
			host = "no" // denied before, while and after
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+".test.example/load", nil)
				res, err := client.Do(req)
				switch {
				case err != nil:
					bad.Add(1)
					select {
					case <-time.After(5 * time.Millisecond):
					case <-ctx.Done():
					}
					continue
				case res.StatusCode == http.StatusOK && host == "no":
					opened.Add(1)
				case res.StatusCode == http.StatusOK:
					good.Add(1)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
		})
	}
	rounds := scaled(3, 20)
	var longest time.Duration
	for range rounds {
		reached := good.Load() + 200
		netlab.Await(t, 10*time.Second, "load", func() bool { return good.Load() >= reached })
		l.daemon.Kill()
		dead := time.Now()
		// While it is dead nothing passes: not to an allowed host, not in the clear, not by name.
		// What was on the way when it died is still arriving.
		before := -1
		netlab.Await(t, 5*time.Second, "the far side to be quiet", func() bool {
			last := before
			before = len(l.world.Sightings())
			return before == last
		})
		for _, addr := range []string{":443", ":80", ":53"} {
			if c, err := l.Agent.Dial(t.Context(), "tcp4", netlab.InternetAddr+addr); err == nil {
				_ = c.Close()
				t.Errorf("connected to the far side's %s with the daemon dead", addr)
			}
		}
		if after := len(l.world.Sightings()); after != before {
			t.Errorf("the far side saw %v", l.world.Sightings()[before:])
		}
		l.daemon.Start(t)
		again := good.Load()
		netlab.Await(t, 10*time.Second, "service after the restart", func() bool { return good.Load() > again })
		longest = max(longest, time.Since(dead))
	}
	cancel()
	wg.Wait()
	figure(t, "requests answered", float64(good.Load()), "")
	figure(t, "requests that failed and said so", float64(bad.Load()), "")
	figure(t, "longest time without service", float64(longest.Milliseconds()), "ms")
	if opened.Load() > 0 || len(l.world.Sightings("https no.test")) > 0 {
		t.Errorf("%d denied requests were answered; the far side saw %v", opened.Load(), l.world.Sightings("no.test"))
	}
	if !errors.Is(ctx.Err(), context.Canceled) || good.Load() < int64(rounds)*200 {
		t.Errorf("%d requests were answered", good.Load())
	}
}
