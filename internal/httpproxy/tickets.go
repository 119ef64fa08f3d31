package httpproxy

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

// ticketLifetime is how long one master key encrypts; it decrypts as long again.
const ticketLifetime = 12 * time.Hour

// ticketKeys derives session ticket keys from the server name.
//
// Invariant: a ticket issued for one name is undecipherable for every other, so
// nothing of one name's session can be taken to another (TestTickets, A9).
type ticketKeys struct {
	mu     sync.Mutex
	made   time.Time   // guarded by mu
	master [2][32]byte // current and previous; guarded by mu
}

func newTicketKeys() *ticketKeys {
	k := &ticketKeys{made: time.Now()}
	for i := range k.master {
		_, _ = rand.Read(k.master[i][:]) // never fails (crypto/rand)
	}
	return k
}

// of returns the keys for name, the one that encrypts first.
func (k *ticketKeys) of(name hostname.Name) [][32]byte {
	k.mu.Lock()
	if now := time.Now(); now.Sub(k.made) > ticketLifetime {
		k.master[1] = k.master[0]
		_, _ = rand.Read(k.master[0][:])
		k.made = now
	}
	master := k.master
	k.mu.Unlock()
	keys := make([][32]byte, len(master))
	for i := range master {
		mac := hmac.New(sha256.New, master[i][:])
		mac.Write([]byte(name.String()))
		mac.Sum(keys[i][:0])
	}
	return keys
}
