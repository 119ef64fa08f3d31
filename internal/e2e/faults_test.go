//go:build linux

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/control"
	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// scaled is a count that fits into a test run, or the full one with ROOTCELL_LOAD=full, as `make bench` sets it.
func scaled(usual, full int) int {
	if os.Getenv("ROOTCELL_LOAD") == "full" {
		return full
	}
	return usual
}

// figure reports a number, and adds it as a line of JSON to the file that ROOTCELL_FIGURES names.
func figure(t *testing.T, name string, value float64, unit string) {
	t.Helper()
	t.Logf("%s: %.4g %s", name, value, unit)
	path := os.Getenv("ROOTCELL_FIGURES")
	if path == "" {
		return
	}
	line, err := json.Marshal(map[string]any{"test": t.Name(), "name": name, "value": value, "unit": unit})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
}

// memoryLimit is what the daemon may have resident in these tests: its soft limit of 128 MiB and a fifth more for what the
// Go runtime does not count.
const memoryLimit = 128 << 10 * 12 / 10 // KiB

// checkMemory reports the daemon's peak and holds it below the limit (KiB).
func (l *lab) checkMemory(t *testing.T, limit int) {
	t.Helper()
	peak := l.memory(t, "VmHWM")
	figure(t, "peak resident memory", float64(peak)/1024, "MiB")
	if peak > limit {
		t.Errorf("the daemon's memory peaked at %d KiB, over %d KiB", peak, limit)
	}
}

// status is what the daemon says of itself.
func (l *lab) status(t *testing.T) control.Status {
	t.Helper()
	var s control.Status
	l.daemon.Ctl(t, &s, "status")
	return s
}

// bystander is a flow that has nothing to do with what a test does to the daemon: requests over one kept-alive
// connection, one after the other. stop ends it and holds that none failed.
func (l *lab) bystander(t *testing.T) (stop func()) {
	t.Helper()
	client := l.client(t)
	get := func() error {
		res, err := client.Get("https://ok2.test.example/bystander")
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	}
	if err := get(); err != nil {
		t.Fatalf("before the load: %v", err)
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	var took []time.Duration
	var failed []error
	go func() {
		defer close(ended)
		for {
			start := time.Now()
			if err := get(); err != nil {
				failed = append(failed, err)
			}
			took = append(took, time.Since(start))
			select {
			case <-quit:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() {
		t.Helper()
		close(quit)
		<-ended
		slices.Sort(took)
		figure(t, "bystander's requests", float64(len(took)), "")
		figure(t, "bystander's median latency", float64(took[len(took)/2].Microseconds())/1000, "ms")
		figure(t, "bystander's longest latency", float64(took[len(took)-1].Microseconds())/1000, "ms")
		if len(failed) > 0 {
			t.Errorf("%d of %d requests of another flow failed, first %v", len(failed), len(took), failed[0])
		}
	}
}

// held is one kept-alive HTTP/1.1 connection.
type held struct {
	*tls.Conn
	br *bufio.Reader
}

// get asks once more on the connection.
func (h held) get(path string) error {
	_ = h.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(h, "GET %s HTTP/1.1\r\nHost: ok.test.example\r\n\r\n", path); err != nil {
		return err
	}
	res, err := http.ReadResponse(h.br, nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// hold opens n connections that have each had one answer, and reports how many failed.
func (l *lab) hold(t *testing.T, n int) (conns []held, failed int) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(l.daemon.CA)
	config := &tls.Config{ServerName: "ok.test.example", RootCAs: roots, NextProtos: []string{"http/1.1"}, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := make(chan struct{})
	for range 16 {
		wg.Go(func() {
			for range next {
				raw, err := l.Agent.Dial(context.Background(), "tcp4", netlab.InternetAddr+":443")
				var h held
				if err == nil {
					h.Conn = tls.Client(raw, config)
					h.br = bufio.NewReaderSize(h.Conn, 512)
					if err = h.get("/held"); err != nil {
						_ = raw.Close()
					}
				}
				mu.Lock()
				if err != nil {
					failed++
				} else {
					conns = append(conns, h)
				}
				mu.Unlock()
			}
		})
	}
	for range n {
		next <- struct{}{}
	}
	close(next)
	wg.Wait()
	t.Cleanup(func() {
		for _, h := range conns {
			_ = h.NetConn().Close()
		}
	})
	return conns, failed
}

// descriptors returns how many connections can be held where each takes two descriptors of this process, which plays both
// the agent and the far side, and two of the daemon; and the daemon's limit.
func descriptors(t *testing.T, wanted int) (connections, limit int) {
	t.Helper()
	need := uint64(2*wanted + 500)
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	if now.Cur < need && unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: need, Max: max(need, now.Max)}) != nil {
		need = now.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: need, Max: need}); err != nil {
			t.Fatal(err)
		}
		t.Logf("a process may have %d files open: %d connections of %d", need, (need-500)/2, wanted)
	}
	return min(wanted, int(need-500)/2), int(need)
}

func TestLoadIdleConnections(t *testing.T) {
	n, files := descriptors(t, scaled(1500, 10000))
	limit := 128 << 20
	if n > 2000 {
		limit = 1 << 30
	}
	l := newLab(t, netlab.Options{Descriptors: files, Extra: fmt.Sprintf("[limits]\nhttps_connections = %d\nmemory_bytes = %d\n", n+48, limit)})
	stop := l.bystander(t)
	before := l.memory(t, "VmRSS")
	start := time.Now()
	conns, failed := l.hold(t, n)
	figure(t, "connections opened", float64(n)/time.Since(start).Seconds(), "/s")
	grown := l.memory(t, "VmRSS") - before
	figure(t, "held connections", float64(len(conns)), "")
	figure(t, "resident memory for a held connection", float64(grown)/float64(max(1, len(conns))), "KiB")
	if failed > 0 || l.status(t).Flows.HTTPS < n {
		t.Errorf("%d of %d connections were not held; the daemon has %d", failed, n, l.status(t).Flows.HTTPS)
	}
	stop()
	for i := 0; i < len(conns); i += max(1, len(conns)/50) {
		if err := conns[i].get("/again"); err != nil {
			t.Errorf("connection %d of %d is not alive: %v", i, len(conns), err)
		}
	}
	l.checkMemory(t, limit>>10*12/10)
}

func TestLoadBeyondTheLimit(t *testing.T) {
	l := newLab(t, netlab.Options{Extra: "[limits]\nhttps_connections = 100\n"})
	stop := l.bystander(t)
	conns, failed := l.hold(t, 250)
	// One connection is the bystander's.
	if len(conns) != 99 || failed != 151 {
		t.Errorf("%d held, %d refused", len(conns), failed)
	}
	stop()
	netlab.Await(t, 5*time.Second, "the refusals in the log", func() bool { return l.denials(t, "limit") >= 151 })
	for _, h := range conns {
		_ = h.NetConn().Close()
	}
	netlab.Await(t, 5*time.Second, "room for new connections", func() bool {
		c, _ := l.hold(t, 1)
		return len(c) == 1
	})
}

// denials counts the audit log's denials with the reason.
func (l *lab) denials(t *testing.T, reason string) (n int) {
	t.Helper()
	for _, e := range l.daemon.AuditLog(t) {
		if e["verdict"] == "deny" && e["reason"] == reason {
			n++
		}
	}
	return n
}

func TestFaultSlowClients(t *testing.T) {
	l := newLab(t, netlab.Options{})
	const each = 40
	hello := clientHello(t, "ok.test.example")
	kinds := map[string]struct {
		addr, send string
		limit      time.Duration
	}{
		"nothing":             {netlab.InternetAddr + ":443", "", 12 * time.Second},
		"half a ClientHello":  {netlab.InternetAddr + ":443", hello[:len(hello)/2], 12 * time.Second},
		"a ClientHello alone": {netlab.InternetAddr + ":443", hello, 22 * time.Second},
		"half a CONNECT":      {netlab.FirewallAddr + ":8080", "CONNECT ok.test", 16 * time.Second},
		"nothing for CONNECT": {netlab.FirewallAddr + ":8080", "", 16 * time.Second},
		"half a DNS message":  {netlab.FirewallAddr + ":53", "\x00\x40\x00\x01", 16 * time.Second},
	}
	stop := l.bystander(t)
	var conns []net.Conn
	limits := map[net.Conn]time.Duration{}
	what := map[net.Conn]string{}
	start := time.Now()
	for kind, k := range kinds {
		for range each {
			c := l.raw(t, k.addr)
			_ = c.SetDeadline(time.Time{})
			_, _ = io.WriteString(c, k.send)
			conns, limits[c], what[c] = append(conns, c), k.limit, kind
		}
	}
	for range each {
		// Half of a head, and a body that does not come: the first has 15 seconds, the second may take minutes.
		c := l.tls(t, "ok.test.example", "http/1.1")
		_, _ = io.WriteString(c, "GET /slow HTTP/1.1\r\nHost: ok.te")
		conns, limits[c], what[c] = append(conns, c), 18*time.Second, "half a head"
		body := l.tls(t, "ok.test.example", "http/1.1")
		_, _ = io.WriteString(body, "POST /slow HTTP/1.1\r\nHost: ok.test.example\r\nContent-Length: 100\r\n\r\nx")
	}
	figure(t, "slow clients at once", float64(len(conns)+each), "")
	var wg sync.WaitGroup
	var late atomic.Int64
	for _, c := range conns {
		wg.Go(func() {
			_ = c.SetReadDeadline(start.Add(limits[c]))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				late.Add(1)
				t.Errorf("%s: still open after %s", what[c], limits[c])
			}
		})
	}
	wg.Wait()
	figure(t, "time until the last slow client was gone", time.Since(start).Seconds(), "s")
	stop()
	l.checkMemory(t, memoryLimit)
}

// clientHello is what a Go client says first.
func clientHello(t *testing.T, name string) string {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(ours, &tls.Config{ServerName: name}).Handshake()
	}()
	defer func() { _ = ours.Close(); _ = theirs.Close() }()
	buffer := make([]byte, 8192)
	n, err := theirs.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return string(buffer[:n])
}

// askAll sends n queries from several sockets with a bounded number on the way, and counts answers by their code.
func (l *lab) askAll(t *testing.T, n int, name func(i int) string) map[int]int {
	t.Helper()
	var mu sync.Mutex
	codes := map[int]int{}
	var wg sync.WaitGroup
	const sockets = 8
	for s := range sockets {
		wg.Go(func() {
			c, err := l.Agent.Dial(context.Background(), "udp4", netlab.FirewallAddr+":53")
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			mine := map[int]int{}
			buffer := make([]byte, 4096)
			const window = 32
			for i := s; i < n; {
				sent := 0
				for ; sent < window && i < n; i, sent = i+sockets, sent+1 {
					m := new(dns.Msg).SetQuestion(dns.Fqdn(name(i)), dns.TypeA)
					packed, err := m.Pack()
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = c.Write(packed)
				}
				for ; sent > 0; sent-- {
					_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
					k, err := c.Read(buffer)
					var answer dns.Msg
					if err != nil || answer.Unpack(buffer[:k]) != nil {
						mine[-1] += sent
						break
					}
					mine[answer.Rcode]++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for code, k := range mine {
				codes[code] += k
			}
		})
	}
	wg.Wait()
	return codes
}

func TestLoadRandomNames(t *testing.T) {
	l := newLab(t, netlab.Options{})
	stop := l.bystander(t)
	l.world.Forget()
	n := scaled(20000, 300000)
	start := time.Now()
	denied := l.askAll(t, n, func(i int) string { return fmt.Sprintf("r%d.%d.random.invalid-name.com", i, i*7) })
	figure(t, "random denied names", float64(n)/time.Since(start).Seconds(), "/s")
	if denied[dns.RcodeRefused]+denied[-1] != n || denied[-1] > n/50 {
		t.Errorf("answers by code %v", denied)
	}
	for _, s := range l.world.Sightings("dns") {
		if strings.Contains(s.Name, "random") {
			t.Fatalf("the far side saw %v", s)
		}
	}
	// Below an allowed suffix a name carries what an attacker wants it to: the budget ends that.
	below := l.askAll(t, 3000, func(i int) string { return fmt.Sprintf("payload-%032d.test.example", i) })
	seen := 0
	for _, s := range l.world.Sightings("dns", "payload-") {
		seen += len(s.Name)
	}
	figure(t, "random names below an allowed suffix, refused", float64(below[dns.RcodeRefused])/30, "%")
	figure(t, "bytes of them that got out", float64(seen), "")
	if seen > 64<<10 {
		t.Errorf("%d bytes of names reached the far side; answers %v", seen, below)
	}
	stop()
	l.checkMemory(t, memoryLimit)
}

func TestLoadDenials(t *testing.T) {
	l := newLab(t, netlab.Options{MaxAuditBytes: 1 << 30, HTTPS: "ok.test.example\nok2.test.example\nscoped.test.example GET /public/\n", DNS: "test.example\n", SSH: "\n"})
	stop := l.bystander(t)
	before := l.status(t).Audit
	requests, names := scaled(40000, 400000), scaled(100000, 600000)
	start := time.Now()
	var wg sync.WaitGroup
	const conns = 8
	for range conns {
		wg.Go(func() { l.denyRequests(t, requests/conns) })
	}
	wg.Wait()
	figure(t, "denied requests", float64(requests)/time.Since(start).Seconds(), "/s")
	start = time.Now()
	codes := l.askAll(t, names, func(i int) string { return fmt.Sprintf("n%d.denied.com", i) })
	figure(t, "denied names", float64(names)/time.Since(start).Seconds(), "/s")
	stop()
	if seen := l.world.Sightings("scoped"); len(seen) > 0 && slices.ContainsFunc(seen, func(s netlab.Sighting) bool { return s.Kind == "https" }) {
		t.Errorf("the far side saw %v", seen)
	}
	// Every decision is in the log or counted as lost. Queries whose datagram the kernel dropped were not decided.
	least := uint64(requests + codes[dns.RcodeRefused])
	netlab.Await(t, 10*time.Second, "every denial to be written or counted", func() bool {
		now := l.status(t).Audit
		return now.Written+now.Dropped-before.Written-before.Dropped >= least
	})
	after := l.status(t).Audit
	figure(t, "denials in all", float64(least), "")
	figure(t, "events lost, all counted", float64(after.Dropped-before.Dropped), "")
	l.checkMemory(t, memoryLimit)
}

// denyRequests asks n times on one connection for a path that is not allowed, some requests ahead of the answers.
func (l *lab) denyRequests(t *testing.T, n int) {
	c := l.tls(t, "scoped.test.example", "http/1.1")
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	br := bufio.NewReader(c)
	const ahead = 20
	lines := strings.Repeat("GET /secret HTTP/1.1\r\nHost: scoped.test.example\r\n\r\n", ahead)
	for range n / ahead {
		if _, err := io.WriteString(c, lines); err != nil {
			t.Error(err)
			return
		}
		for range ahead {
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			if res.StatusCode != http.StatusForbidden {
				t.Errorf("status %s", res.Status)
				return
			}
		}
	}
}

func TestFaultFullAuditDisk(t *testing.T) {
	l := newLab(t, netlab.Options{})
	logDir := filepath.Join(l.Dir, "log")
	mustRun(t, "mount", "-t", "tmpfs", "-o", "size=256k,mode=0777", "tmpfs", logDir)
	t.Cleanup(func() { mustRun(t, "umount", "-l", logDir) })
	l.daemon.Kill()
	l.daemon.Start(t)
	stop := l.bystander(t)
	const n = 6000
	before := l.status(t).Audit
	codes := l.askAll(t, n, func(i int) string { return fmt.Sprintf("n%d.denied.com", i) })
	if codes[dns.RcodeRefused]+codes[-1] != n || codes[-1] > n/50 {
		t.Errorf("with a full disk: answers by code %v", codes)
	}
	full := l.status(t).Audit
	if full.Error == "" || full.Dropped == 0 {
		t.Errorf("a full disk goes unsaid: %+v", full)
	}
	figure(t, "events written before the disk was full", float64(full.Written), "")
	figure(t, "events lost, all counted", float64(full.Dropped), "")
	if r := l.curl(t, "-o", "/dev/null", "-w", "%{http_code}", "https://ok.test.example/"); r.stdout != "200" {
		t.Errorf("an allowed request with a full disk: %+v", r)
	}
	mustRun(t, "mount", "-o", "remount,size=64m", logDir)
	netlab.Await(t, 10*time.Second, "the log to be written again", func() bool {
		_ = l.askAll(t, 8, func(i int) string { return fmt.Sprintf("later%d.denied.com", i) })
		now := l.status(t).Audit
		return now.Error == "" && now.Written > full.Written
	})
	after := l.status(t).Audit
	if got := after.Written + after.Dropped - before.Written - before.Dropped; got < uint64(codes[dns.RcodeRefused]) {
		t.Errorf("%d events are accounted for, %d names were denied", got, codes[dns.RcodeRefused])
	}
	stop()
	l.checkMemory(t, memoryLimit)
}
