package ca

import (
	"container/list"
	"crypto/tls"
	"errors"
	"sync"
	"time"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

// cache is a bounded least-recently-used map from name to leaf in which
// concurrent callers of one name wait for a single minting.
type cache struct {
	size int

	mu      sync.Mutex // protects all the following
	entries map[hostname.Name]*list.Element
	order   *list.List // of *entry, most recently used first
}

// errInterrupted is what waiters get when a minting panicked.
var errInterrupted = errors.New("minting a leaf was interrupted")

type entry struct {
	name hostname.Name
	done chan struct{} // closed when leaf and err are set
	leaf *tls.Certificate
	err  error
}

func newCache(size int) *cache {
	return &cache{size: max(size, 1), entries: map[hostname.Name]*list.Element{}, order: list.New()}
}

// get returns the leaf for name, minting it when there is none that is fresh at
// now. An error is given to everyone who waited for that minting and to nobody
// else: the next call mints anew.
func (c *cache) get(name hostname.Name, now time.Time, mint func(hostname.Name, time.Time) (*tls.Certificate, error)) (*tls.Certificate, error) {
	c.mu.Lock()
	if element, ok := c.entries[name]; ok {
		e := element.Value.(*entry)
		if !e.stale(now) {
			c.order.MoveToFront(element)
			c.mu.Unlock()
			<-e.done
			return e.leaf, e.err
		}
		c.drop(element)
	}
	e := &entry{name: name, done: make(chan struct{}), err: errInterrupted}
	c.entries[name] = c.order.PushFront(e)
	for c.order.Len() > c.size {
		c.drop(c.order.Back())
	}
	c.mu.Unlock()

	defer close(e.done) // also when mint panics: nobody may wait for ever
	e.leaf, e.err = mint(name, now)
	return e.leaf, e.err
}

// drop needs c.mu.
func (c *cache) drop(element *list.Element) {
	c.order.Remove(element)
	delete(c.entries, element.Value.(*entry).name)
}

// stale reports whether a finished entry is near its end, or not yet valid
// because the clock was set back. An unfinished entry is never stale.
func (e *entry) stale(now time.Time) bool {
	select {
	case <-e.done:
	default:
		return false
	}
	if e.err != nil {
		return true
	}
	cert := e.leaf.Leaf
	renew := min(leafRenew, cert.NotAfter.Sub(cert.NotBefore)/2)
	return now.Before(cert.NotBefore) || !now.Before(cert.NotAfter.Add(-renew))
}

// onceMinter makes its Minter on first use. A failure is not kept, so that a
// passing shortage does not end RSA for the life of the process.
type onceMinter struct {
	mu     sync.Mutex
	minter Minter
}

func (o *onceMinter) get(make func() (Minter, error)) (Minter, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.minter != nil {
		return o.minter, nil
	}
	minter, err := make()
	if err != nil {
		return nil, err
	}
	o.minter = minter
	return minter, nil
}
