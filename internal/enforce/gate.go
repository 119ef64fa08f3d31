// Package enforce holds the policy in force and the flows that were admitted
// under it, so that a change of policy reaches what is already open.
package enforce

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rootcell-ai/rootcell/internal/policy"
)

// Snapshot is one immutable policy and its number. Generations start at 1 with the
// first Swap; generation 0 has no policy and denies everything.
type Snapshot struct {
	Generation uint64
	Policy     *policy.Policy
}

// Flow is something open that the policy allowed: a TLS connection, an HTTP/2
// stream, a tunnel. Its methods may be called from any goroutine, and before Admit
// has returned.
type Flow interface {
	// Judge decides the flow again under the given policy, which may be nil. It
	// must neither block nor call the Gate.
	Judge(*policy.Policy) policy.Decision
	// Revoke ends the flow because of the given denial, at once. It is called at
	// most once and never after release. A Swap in the middle of Admit can call it
	// before Admit returns.
	Revoke(policy.Decision)
}

// shards keeps admissions on different processors apart.
const shards = 16

// revokePatience is how long Swap waits for Revoke calls to return. Those that
// take longer go on by themselves.
const revokePatience = 500 * time.Millisecond

// Gate is the one place where the policy in force lives. Make one with New.
type Gate struct {
	current atomic.Pointer[Snapshot]
	swap    sync.Mutex // one Swap at a time
	next    atomic.Uint32
	open    atomic.Int64
	revoked atomic.Uint64
	shards  [shards]shard
}

type shard struct {
	mu    sync.Mutex
	flows map[*entry]struct{}
	_     [48]byte // its own cache line
}

// entry is an admitted flow. Its state decides who ends it, and does so once.
type entry struct {
	flow  Flow
	shard *shard
	state atomic.Int32
}

const (
	pending  int32 = iota // Admit is judging it
	live                  // admitted
	released              // refused, or ended by its owner
	revoked               // ended by Swap
)

// New returns a gate that denies everything: generation 0, no policy.
func New() *Gate {
	g := &Gate{}
	g.current.Store(&Snapshot{})
	for i := range g.shards {
		g.shards[i].flows = map[*entry]struct{}{}
	}
	return g
}

// Current returns the policy in force. It takes no lock.
func (g *Gate) Current() Snapshot { return *g.current.Load() }

// Flows returns the number of admitted flows that are open.
func (g *Gate) Flows() int { return int(g.open.Load()) }

// Revoked returns the number of flows that swaps have ended so far.
func (g *Gate) Revoked() uint64 { return g.revoked.Load() }

// Admit judges the flow under the policy in force and, if it is allowed, keeps
// watch over it until release is called. release is never nil and may be called
// more than once; its owner calls it when the flow is over. After a denial there
// is nothing to release.
//
// Invariant: no flow stays admitted under a policy that is no longer in force. It
// is registered before the last look at the generation, and Swap publishes the
// generation before it looks at the registered flows, so at least one of the two
// judges the flow under the new policy (TestAdmitAgainstSwap).
func (g *Gate) Admit(f Flow) (release func(), d policy.Decision) {
	e := &entry{flow: f, shard: &g.shards[g.next.Add(1)%shards]}
	e.shard.mu.Lock()
	e.shard.flows[e] = struct{}{}
	e.shard.mu.Unlock()
	g.open.Add(1)
	release = func() {
		for {
			s := e.state.Load()
			if s == released || s == revoked {
				return
			}
			if e.state.CompareAndSwap(s, released) {
				g.forget(e)
				return
			}
		}
	}
	for {
		now := g.current.Load()
		if d = judge(f, now.Policy); !d.Allow {
			release()
			return release, d
		}
		e.state.CompareAndSwap(pending, live)
		if g.current.Load() == now {
			return release, d
		}
	}
}

// Swap puts the policy in force, judges every admitted flow again and revokes
// those that it denies. A nil policy denies everything. It returns the policy's
// generation.
func (g *Gate) Swap(p *policy.Policy) uint64 {
	g.swap.Lock()
	defer g.swap.Unlock()
	now := &Snapshot{Generation: g.current.Load().Generation + 1, Policy: p}
	g.current.Store(now)
	var wg sync.WaitGroup
	for _, e := range g.admitted() {
		if e.state.Load() != live {
			continue
		}
		d := judge(e.flow, p)
		if d.Allow || !e.state.CompareAndSwap(live, revoked) {
			continue
		}
		g.forget(e)
		g.revoked.Add(1)
		// Apart, because closing a connection can wait for its peer.
		wg.Go(func() { e.revoke(d) })
	}
	wait(&wg, revokePatience)
	return now.Generation
}

// admitted returns the flows registered at this moment.
func (g *Gate) admitted() []*entry {
	var out []*entry
	for i := range g.shards {
		s := &g.shards[i]
		s.mu.Lock()
		for e := range s.flows {
			out = append(out, e)
		}
		s.mu.Unlock()
	}
	return out
}

func (g *Gate) forget(e *entry) {
	e.shard.mu.Lock()
	delete(e.shard.flows, e)
	e.shard.mu.Unlock()
	g.open.Add(-1)
}

// revoke ends the flow. A panic in it must not take the daemon, and with it the
// other revocations, down.
func (e *entry) revoke(d policy.Decision) {
	defer func() { _ = recover() }()
	e.flow.Revoke(d)
}

// judge asks the flow; a flow that panics is denied.
func judge(f Flow, p *policy.Policy) (d policy.Decision) {
	defer func() {
		if recover() != nil {
			d = policy.Decision{Reason: policy.BadPolicy}
		}
	}()
	return f.Judge(p)
}

func wait(wg *sync.WaitGroup, patience time.Duration) {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
