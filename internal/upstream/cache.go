package upstream

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

const cacheShards = 16

// cache holds answers until they expire, in a bounded number. Which one gives way
// when it is full is left to chance: it costs nothing on a hit, and a flood of
// names that wants to push out others has to pass the limits of dnsproxy first.
type cache struct {
	seed   maphash.Seed
	shards [cacheShards]cacheShard
}

type cacheShard struct {
	mu      sync.RWMutex
	limit   int
	answers map[hostname.Name]*Answer
}

func (c *cache) init(entries int) {
	c.seed = maphash.MakeSeed()
	for i := range c.shards {
		c.shards[i].limit = max(1, entries/cacheShards)
		c.shards[i].answers = map[hostname.Name]*Answer{}
	}
}

func (c *cache) shard(name hostname.Name) *cacheShard {
	return &c.shards[maphash.Comparable(c.seed, name)%cacheShards]
}

func (c *cache) get(name hostname.Name, now time.Time) (*Answer, bool) {
	s := c.shard(name)
	s.mu.RLock()
	a := s.answers[name]
	s.mu.RUnlock()
	if a == nil || !now.Before(a.expires) {
		return nil, false
	}
	return a, true
}

// evictionSample is how many entries are looked at for an expired one.
const evictionSample = 8

func (c *cache) put(name hostname.Name, a *Answer, now time.Time) {
	s := c.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.answers[name]; !known && len(s.answers) >= s.limit {
		s.evict(now)
	}
	s.answers[name] = a
}

// evict removes the expired entries of a sample, or one that is still fresh.
func (s *cacheShard) evict(now time.Time) {
	var victim hostname.Name
	seen, removed := 0, 0
	for name, a := range s.answers { // in random order
		victim = name
		if !now.Before(a.expires) {
			delete(s.answers, name)
			removed++
		}
		if seen++; seen == evictionSample {
			break
		}
	}
	if removed == 0 {
		delete(s.answers, victim)
	}
}

func (c *cache) remove(name hostname.Name) {
	s := c.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.answers, name)
}

func (c *cache) flush() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		clear(s.answers)
		s.mu.Unlock()
	}
}

// flights makes one lookup of equal ones that are under way at the same time, and
// bounds their number.
type flights struct {
	mu    sync.Mutex
	limit int
	calls map[hostname.Name]*flight
}

type flight struct {
	done   chan struct{}
	answer *Answer
	err    error
}

func (f *flights) init(limit int) {
	f.limit = limit
	f.calls = map[hostname.Name]*flight{}
}

// do runs ask, or waits for the run that is under way. It returns early when ctx
// ends; the lookup then goes on for the others and for the cache.
func (f *flights) do(ctx context.Context, name hostname.Name, ask func() (*Answer, error)) (*Answer, error) {
	f.mu.Lock()
	call, running := f.calls[name]
	if !running {
		if len(f.calls) >= f.limit {
			f.mu.Unlock()
			return nil, ErrBusy
		}
		call = &flight{done: make(chan struct{}), err: errClosed}
		f.calls[name] = call
	}
	f.mu.Unlock()
	if !running {
		if ctx.Done() == nil {
			f.run(name, call, ask)
		} else {
			go f.run(name, call, ask)
		}
	}
	select {
	case <-call.done:
		return call.answer, call.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *flights) run(name hostname.Name, call *flight, ask func() (*Answer, error)) {
	defer func() {
		// A response that breaks the parser fails this lookup, not the daemon.
		if r := recover(); r != nil {
			call.answer, call.err = nil, fmt.Errorf("reading response: %v", r)
		}
		f.mu.Lock()
		delete(f.calls, name)
		f.mu.Unlock()
		close(call.done)
	}()
	call.answer, call.err = ask()
}
