//lint:file-ignore SA1019 golang.org/x/net/http2 is mended apart from the toolchain and serves one connection without a listener

package httpproxy

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

const (
	// idleUpstream is how long an unused upstream connection is kept.
	idleUpstream = time.Minute
	// upstreamSessions bounds the TLS sessions remembered for resumption.
	upstreamSessions = 512
)

// pool keeps verified upstream connections by name and policy generation. It is
// never keyed by address: two names on one address share nothing (C10).
type pool struct {
	srv      *Server
	h2       *http2.Transport
	sessions tls.ClientSessionCache

	mu     sync.Mutex
	hosts  map[hostname.Name]*host // guarded by mu
	closed bool                    // guarded by mu
	sweep  *time.Timer             // guarded by mu; runs while there are hosts
}

// host is what is kept for one name. Its fields are guarded by pool.mu. It is a flow of
// the gate: when the name is no longer allowed, its connections are closed.
type host struct {
	pool       *pool
	name       hostname.Name
	generation uint64
	protocol   string // the last one that the server chose; "" when unknown
	idle       []*upstreamConn
	multi      []*h2Conn
	dialing    chan struct{} // closed when the HTTP/2 dial under way is over; else nil
	touched    time.Time
	release    func()
}

// h2Conn is an HTTP/2 connection to a server.
type h2Conn struct {
	up *upstreamConn
	cc *http2.ClientConn
}

func newPool(s *Server) *pool {
	// What clients do not read is buffered up to these bounds, for one stream and
	// for a whole connection to a server.
	base := &http.Transport{
		ExpectContinueTimeout: continuePatience,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: 2 << 20, MaxReceiveBufferPerConnection: 16 << 20,
		},
	}
	h2, err := http2.ConfigureTransports(base)
	if err != nil {
		panic(err) // only of a transport that was configured before
	}
	h2.DisableCompression = true
	h2.MaxHeaderListSize = uint32(s.limits.HeaderBytesH2)
	h2.IdleConnTimeout = idleUpstream
	h2.ReadIdleTimeout, h2.PingTimeout = 30*time.Second, 15*time.Second
	return &pool{
		srv: s, h2: h2, hosts: map[hostname.Name]*host{},
		sessions: tls.NewLRUClientSessionCache(upstreamSessions),
	}
}

// Judge implements enforce.Flow.
func (h *host) Judge(p *policy.Policy) policy.Decision { return p.TLS(h.name) }

// Revoke implements enforce.Flow.
func (h *host) Revoke(policy.Decision) {
	p := h.pool
	p.mu.Lock()
	if p.hosts[h.name] == h {
		delete(p.hosts, h.name)
	}
	stale := h.drain()
	p.mu.Unlock()
	closeAll(stale)
}

// drain takes every connection out of the host.
func (h *host) drain() []*upstreamConn {
	out := h.idle
	for _, c := range h.multi {
		out = append(out, c.up)
	}
	h.idle, h.multi = nil, nil
	return out
}

func closeAll(conns []*upstreamConn) {
	for _, u := range conns {
		u.close()
	}
}

// host returns the entry of the name for the policy in force, nil when the pool is
// closed or the name is not allowed. Connections of an earlier generation are
// dropped: idle ones at once, HTTP/2 ones when their last stream ends. It is called with mu held.
func (p *pool) host(name hostname.Name) *host {
	generation := p.srv.cfg.Gate.Current().Generation
	h := p.hosts[name]
	if h != nil && h.generation != generation {
		closeAll(h.idle)
		h.idle = nil
		for _, c := range h.multi {
			c.cc.SetDoNotReuse()
			go func() { _ = c.cc.Shutdown(p.srv.base) }()
		}
		h.multi, h.generation = nil, generation
	}
	if h == nil && !p.closed {
		h = &host{pool: p, name: name, generation: generation}
		p.hosts[name] = h
		if p.sweep == nil {
			p.sweep = time.AfterFunc(idleUpstream/2, p.sweepIdle)
		}
	}
	if h != nil {
		h.touched = time.Now()
	}
	return h
}

// watch puts a host under the gate's watch, once. It is called without mu, which
// Revoke takes. A name that the policy in force denies keeps nothing.
func (p *pool) watch(h *host) bool {
	p.mu.Lock()
	watched := h.release != nil
	p.mu.Unlock()
	if watched {
		return true
	}
	release, d := p.srv.cfg.Gate.Admit(h)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !d.Allow || h.release != nil || p.hosts[h.name] != h {
		defer release()
		return d.Allow && p.hosts[h.name] == h
	}
	h.release = release
	return true
}

// protocol returns what the server of the name last spoke, "" when not known.
func (p *pool) protocol(name hostname.Name) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.hosts[name]; h != nil {
		return h.protocol
	}
	return ""
}

// chose remembers that the server of the name preferred HTTP/1.1 although it was offered HTTP/2. A connection for a
// client that speaks HTTP/1.1 alone says nothing about that.
func (p *pool) chose(name hostname.Name) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.host(name); h != nil {
		h.protocol = protoH1
	}
}

// get returns an idle HTTP/1.1 connection that is still open, nil for none.
func (p *pool) get(name hostname.Name) *upstreamConn {
	for {
		p.mu.Lock()
		h := p.host(name)
		if h == nil || len(h.idle) == 0 {
			p.mu.Unlock()
			return nil
		}
		u := h.idle[len(h.idle)-1]
		h.idle = h.idle[:len(h.idle)-1]
		p.mu.Unlock()
		if u.usable(p.srv.cfg.Gate.Current().Generation) {
			return u
		}
		u.close()
	}
}

// put keeps a connection whose last exchange ended cleanly.
func (p *pool) put(name hostname.Name, u *upstreamConn) {
	p.mu.Lock()
	h := p.host(name)
	p.mu.Unlock()
	if h == nil || !p.watch(h) {
		u.close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hosts[name] != h || u.generation != h.generation || len(h.idle) >= p.srv.limits.IdleUpstream {
		u.close()
		return
	}
	u.idleSince = time.Now()
	h.idle = append(h.idle, u)
}

// sweepIdle closes what was idle for too long and forgets hosts that have nothing.
func (p *pool) sweepIdle() {
	limit := time.Now().Add(-idleUpstream)
	var stale []*upstreamConn
	var releases []func()
	p.mu.Lock()
	for name, h := range p.hosts {
		old := 0
		for old < len(h.idle) && h.idle[old].idleSince.Before(limit) {
			old++
		}
		stale = append(stale, h.idle[:old]...)
		h.idle = append([]*upstreamConn(nil), h.idle[old:]...)
		h.multi = openOnly(h.multi)
		if len(h.idle) == 0 && len(h.multi) == 0 && h.dialing == nil && h.touched.Before(limit) {
			delete(p.hosts, name)
			if h.release != nil {
				releases = append(releases, h.release)
			}
		}
	}
	p.sweep = nil
	if len(p.hosts) > 0 && !p.closed {
		p.sweep = time.AfterFunc(idleUpstream/2, p.sweepIdle)
	}
	p.mu.Unlock()
	closeAll(stale)
	for _, release := range releases {
		release()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	if p.sweep != nil {
		p.sweep.Stop()
	}
	var stale []*upstreamConn
	var releases []func()
	for _, h := range p.hosts {
		stale = append(stale, h.drain()...)
		if h.release != nil {
			releases = append(releases, h.release)
		}
	}
	p.hosts = map[hostname.Name]*host{}
	p.mu.Unlock()
	closeAll(stale)
	for _, release := range releases {
		release()
	}
}

func openOnly(conns []*h2Conn) []*h2Conn {
	out := conns[:0]
	for _, c := range conns {
		if !c.cc.State().Closed {
			out = append(out, c)
		}
	}
	clear(conns[len(out):])
	return out
}

// multiplexed returns an HTTP/2 connection with a stream reserved for one
// RoundTrip. One dial a host is under way at a time.
func (p *pool) multiplexed(ctx context.Context, name hostname.Name) (*h2Conn, error) {
	for {
		p.mu.Lock()
		h := p.host(name)
		if h == nil {
			p.mu.Unlock()
			return nil, ErrClosed
		}
		h.multi = openOnly(h.multi)
		for _, c := range h.multi {
			if c.cc.ReserveNewRequest() {
				p.mu.Unlock()
				return c, nil
			}
		}
		if wait := h.dialing; wait != nil {
			p.mu.Unlock()
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		done := make(chan struct{})
		h.dialing = done
		p.mu.Unlock()
		up, err := p.srv.dial(ctx, name, []string{protoH2})
		c, err := p.join(h, up, err)
		p.mu.Lock()
		h.dialing = nil
		p.mu.Unlock()
		close(done)
		return c, err
	}
}

// join makes a dialed connection part of the host and reserves a stream.
func (p *pool) join(h *host, up *upstreamConn, err error) (*h2Conn, error) {
	if err != nil {
		return nil, err
	}
	if up.protocol != protoH2 {
		p.mu.Lock()
		h.protocol = protoH1
		p.mu.Unlock()
		up.close()
		return nil, errNoH2
	}
	cc, err := p.h2.NewClientConn(newBatchConn(up.Conn, up.link.Conn, p.srv.limits.Stall))
	if err != nil {
		up.close()
		return nil, err
	}
	c := &h2Conn{up: up, cc: cc}
	cc.ReserveNewRequest()
	if !p.watch(h) {
		up.close()
		return nil, errRevoked
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if up.generation == h.generation && p.hosts[h.name] == h {
		h.multi = append(h.multi, c)
		h.protocol = protoH2
	}
	return c, nil
}

// addH2 keeps a connection that was opened to learn the protocol.
func (p *pool) addH2(name hostname.Name, up *upstreamConn) {
	p.mu.Lock()
	h := p.host(name)
	p.mu.Unlock()
	if h == nil || !p.watch(h) {
		up.close()
		return
	}
	cc, err := p.h2.NewClientConn(newBatchConn(up.Conn, up.link.Conn, p.srv.limits.Stall))
	if err != nil {
		up.close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if up.generation != h.generation || p.hosts[name] != h {
		up.close()
		return
	}
	h.multi = append(h.multi, &h2Conn{up: up, cc: cc})
	h.protocol = protoH2
}
