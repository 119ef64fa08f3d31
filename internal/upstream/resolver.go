// Package upstream is the firewall's own way out: it resolves allowed names
// through the configured resolvers and dials what they resolve to.
//
// It asks for IPv4 addresses and nothing else, with queries that it builds itself;
// no byte of a client's query is passed on. Every address is held against package
// specialaddr before anybody sees it, and Dial connects to the very addresses that
// were checked.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

// Defaults for the zero fields of Config.
const (
	DefaultCacheEntries = 16384
	DefaultTimeout      = 5 * time.Second
	DefaultDialTimeout  = 10 * time.Second
	DefaultMaxInFlight  = 1024
)

// Config says whom to ask and what is never an answer.
type Config struct {
	// Resolvers are asked in this order; one that does not answer comes last for a
	// while. At least one is needed.
	Resolvers []netip.AddrPort
	// AllowPrivate are the special addresses that names may resolve to after all.
	AllowPrivate []netip.Prefix
	// Deny is never an answer, whatever AllowPrivate says: the firewall's own
	// addresses and those of its host.
	Deny []netip.Prefix

	CacheEntries int           // names kept; 0 means DefaultCacheEntries
	MaxInFlight  int           // lookups at once; 0 means DefaultMaxInFlight
	Timeout      time.Duration // of a whole lookup; 0 means DefaultTimeout
	DialTimeout  time.Duration // of a whole Dial after the lookup; 0 means DefaultDialTimeout
	Log          *slog.Logger  // nil means none
}

// Resolver resolves and dials. It is safe for concurrent use. Close it to release
// its sockets.
type Resolver struct {
	timeout     time.Duration
	dialTimeout time.Duration
	filter      filter
	cache       cache
	flights     flights
	servers     []*server
	log         *slog.Logger
}

// ErrBusy means that too many lookups are under way.
var ErrBusy = errors.New("too many lookups are under way")

// errClosed ends lookups that are under way when the resolver is closed.
var errClosed = errors.New("the resolver is closed")

// New returns a Resolver. It opens no socket before the first lookup.
func New(c Config) (*Resolver, error) {
	if len(c.Resolvers) == 0 {
		return nil, errors.New("starting resolver: no upstream resolver is configured; name at least one under [upstream] resolvers")
	}
	r := &Resolver{
		timeout:     orDefault(c.Timeout, DefaultTimeout),
		dialTimeout: orDefault(c.DialTimeout, DefaultDialTimeout),
		filter:      filter{allow: c.AllowPrivate, deny: c.Deny},
		log:         c.Log,
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.cache.init(orDefault(c.CacheEntries, DefaultCacheEntries))
	r.flights.init(orDefault(c.MaxInFlight, DefaultMaxInFlight))
	for _, addr := range c.Resolvers {
		if !addr.IsValid() || addr.Port() == 0 {
			return nil, fmt.Errorf("starting resolver: upstream resolver %q is not address:port", addr)
		}
		r.servers = append(r.servers, newServer(addr, r.log))
	}
	return r, nil
}

func orDefault[T int | time.Duration](v, def T) T {
	if v > 0 {
		return v
	}
	return def
}

// Close releases the sockets. Lookups under way fail.
func (r *Resolver) Close() error {
	for _, s := range r.servers {
		s.close()
	}
	return nil
}

// Flush forgets every cached answer.
func (r *Resolver) Flush() { r.cache.flush() }

// Cached returns the answer for name if it is known and fresh at the given time.
// It sends nothing.
func (r *Resolver) Cached(name hostname.Name, now time.Time) (*Answer, bool) {
	return r.cache.get(name, now)
}

// Lookup asks for the IPv4 addresses of name. A name that does not exist or has
// none is an Answer, not an error; an error means that no resolver gave an answer
// (then it wraps the last one's trouble), that ctx ended, or ErrBusy. Equal
// lookups at the same time are one query.
//
// Invariant: callers have asked the policy first; Lookup itself sends whatever
// name it is given (dnsproxy: TestDeniedNamesNeverReachUpstream).
func (r *Resolver) Lookup(ctx context.Context, name hostname.Name) (*Answer, error) {
	if name.IsZero() {
		return nil, errors.New("resolving: the name is empty")
	}
	if a, ok := r.cache.get(name, time.Now()); ok {
		return a, nil
	}
	a, err := r.flights.do(ctx, name, func() (*Answer, error) {
		// Detached from the first caller: the others must not fail when it goes away.
		ctx, cancel := context.WithTimeout(context.Background(), r.timeout)
		defer cancel()
		a, err := r.ask(ctx, name)
		if err == nil {
			r.cache.put(name, a, time.Now())
		}
		return a, err
	})
	if err != nil {
		return nil, fmt.Errorf("resolving %q: %w", name, err)
	}
	return a, nil
}

// attempts is how often the whole list of resolvers is asked in one lookup.
const attempts = 3

// ask goes through the resolvers, the healthy ones first.
func (r *Resolver) ask(ctx context.Context, name hostname.Name) (*Answer, error) {
	var last error
	var failed *Answer
	for attempt := range attempts {
		for _, s := range byHealth(r.servers, time.Now()) {
			a, err := s.ask(ctx, name, attempt, &r.filter)
			if ctx.Err() != nil {
				return nil, noAnswer(last, ctx.Err())
			}
			if err != nil {
				s.failed(time.Now())
				last = fmt.Errorf("asking resolver %s: %w", s.addr, err)
				continue
			}
			s.worked()
			if a.Rcode != rcodeServFail {
				return a, nil
			}
			failed = a
		}
		if failed != nil {
			// They answer, and the answer is that they cannot tell.
			return failed, nil
		}
	}
	return nil, noAnswer(last, nil)
}

func noAnswer(last, ctxErr error) error {
	if last == nil {
		last = ctxErr
	}
	return last
}
