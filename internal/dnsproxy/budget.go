package dnsproxy

import (
	"math"
	"strings"
	"sync"
	"time"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

// budget bounds what the agent can tell the owner of a zone below an allowed
// suffix merely by asking for names in it. Every name that goes upstream costs
// the characters it has beyond the suffix, plus nameCost; a name that was paid
// for lately costs repeatCost, because which one is asked again says something
// too. A character is worth about five bits. A name that is the suffix itself
// tells nothing and is free, so what is listed by its full name always works.
type budget struct {
	burst   float64
	perHour float64

	mu       sync.Mutex
	suffixes map[string]*bucket
	// Names paid for, in two generations: when the young one is full it becomes the
	// old one, and the old one is forgotten.
	young, old map[hostname.Name]struct{}
}

const (
	nameCost    = 4
	repeatCost  = 1
	maxNames    = 4096 // in a generation
	maxSuffixes = 1024
)

// bucket is the budget of one suffix.
type bucket struct {
	left float64
	at   time.Time
}

func newBudget(burst, perHour int) *budget {
	return &budget{
		burst:    float64(burst),
		perHour:  float64(perHour),
		suffixes: map[string]*bucket{},
		young:    map[hostname.Name]struct{}{},
	}
}

// spend pays for a lookup of name below suffix. It is false when the budget of
// the suffix does not cover it.
func (b *budget) spend(name hostname.Name, suffix string, now time.Time) bool {
	beyond := len(name.String()) - len(suffix)
	if beyond == 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	cost := float64(beyond + nameCost)
	if b.paid(name) {
		cost = repeatCost
	}
	k := b.bucket(suffix, now)
	if k.left < cost {
		return false
	}
	k.left -= cost
	b.remember(name)
	return true
}

func (b *budget) paid(name hostname.Name) bool {
	if _, ok := b.young[name]; ok {
		return true
	}
	_, ok := b.old[name]
	return ok
}

func (b *budget) remember(name hostname.Name) {
	if len(b.young) >= maxNames {
		b.old, b.young = b.young, map[hostname.Name]struct{}{}
	}
	b.young[name] = struct{}{}
}

// bucket returns the bucket of suffix as it is now.
func (b *budget) bucket(suffix string, now time.Time) *bucket {
	k := b.suffixes[suffix]
	if k == nil {
		if len(b.suffixes) >= maxSuffixes {
			b.dropFullest(now)
		}
		k = &bucket{left: b.burst, at: now}
		b.suffixes[suffix] = k
	}
	k.refill(b, now)
	return k
}

func (k *bucket) refill(b *budget, now time.Time) {
	k.left = min(b.burst, k.left+b.perHour*max(0, now.Sub(k.at).Hours()))
	k.at = now
}

// dropFullest forgets the bucket that has the most left, so that nobody gains a
// full one by asking for many suffixes.
func (b *budget) dropFullest(now time.Time) {
	fullest, most := "", math.Inf(-1)
	for suffix, k := range b.suffixes {
		if k.refill(b, now); k.left > most {
			fullest, most = suffix, k.left
		}
	}
	delete(b.suffixes, fullest)
}

// coveringSuffix returns the shortest suffix of name that the same rule allows:
// the rule's own suffix, and for the rule that allows everything the last two
// labels.
func coveringSuffix(p *policy.Policy, name hostname.Name, rule string) string {
	suffix := name.String()
	for {
		_, parent, ok := strings.Cut(suffix, ".")
		if !ok {
			return suffix
		}
		n, err := hostname.Parse(parent)
		if err != nil {
			return suffix
		}
		if d := p.DNS(n); !d.Allow || d.Rule != rule {
			return suffix
		}
		suffix = parent
	}
}

const (
	// Labels at least this long, of so many bits a character and with a digit in so
	// many characters are data in some base-16 or base-32 alphabet, not something
	// that a person named. Words alone reach the entropy, but not the digits; a UUID
	// with a short prefix stays below the length.
	suspectLabel   = 48
	suspectEntropy = 2.5
	suspectDigits  = 8
)

// looksLikeData reports whether the part of name beyond suffix is shaped like a
// payload: too long altogether, or with a long label of random characters.
func looksLikeData(name hostname.Name, suffix string, maxChars int) bool {
	beyond := name.String()[:len(name.String())-len(suffix)]
	if len(beyond) > maxChars {
		return true
	}
	for label := range strings.SplitSeq(beyond, ".") {
		if len(label) >= suspectLabel && digits(label)*suspectDigits >= len(label) && entropy(label) >= suspectEntropy {
			return true
		}
	}
	return false
}

func digits(s string) (n int) {
	for i := range len(s) {
		if '0' <= s[i] && s[i] <= '9' {
			n++
		}
	}
	return n
}

// entropy returns the bits a character of s carries by the frequencies in s.
func entropy(s string) float64 {
	var count [256]int
	for i := range len(s) {
		count[s[i]]++
	}
	bits := 0.0
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(s))
			bits -= p * math.Log2(p)
		}
	}
	return bits
}
