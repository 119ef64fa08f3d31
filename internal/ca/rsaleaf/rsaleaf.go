// Package rsaleaf mints RSA-2048 leaves with martian's mitm.Config for the few
// clients that cannot verify ECDSA. It lives apart from package ca so that
// programs that only create CAs link neither martian nor an RSA key generator.
package rsaleaf

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/google/martian/v3/mitm"

	"github.com/rootcell-ai/rootcell/internal/ca"
	"github.com/rootcell-ai/rootcell/internal/hostname"
)

const (
	// validity is how far martian sets NotBefore and NotAfter from now: 48 hours
	// in all, within the 72 of the other leaves.
	validity = 24 * time.Hour
	// maxMinted bounds martian's own cache, which never evicts: after so many
	// names the Config is replaced, its key with it.
	maxMinted = 512
)

// boundSerials keeps martian's serials within 16 octets: its default of 20
// needs a twenty-first for the sign in half of all cases, against RFC 5280,
// 4.1.2.2. The variable is the library's, so it is set once, before any use.
var boundSerials = sync.OnceFunc(func() { mitm.MaxSerialNumber = new(big.Int).Lsh(big.NewInt(1), 127) })

// New returns a ca.Minter that signs with the given CA; it is a ca.MinterMaker.
// It generates an RSA key, which takes some tenths of a second.
func New(cert *x509.Certificate, key crypto.Signer) (ca.Minter, error) {
	boundSerials()
	m := &minter{ca: cert, key: key}
	if err := m.renew(); err != nil {
		return nil, err
	}
	return m, nil
}

type minter struct {
	ca  *x509.Certificate
	key crypto.Signer

	mu     sync.Mutex // protects all the following
	config *mitm.Config
	minted int
}

// Mint returns an RSA leaf for exactly name. It is safe for concurrent use.
func (m *minter) Mint(name hostname.Name) (*tls.Certificate, error) {
	host := name.String()
	if host == "" {
		return nil, fmt.Errorf("minting for an empty name")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.minted >= maxMinted {
		if err := m.renew(); err != nil {
			return nil, err
		}
	}
	m.minted++
	leaf, err := m.config.TLS().GetCertificate(&tls.ClientHelloInfo{ServerName: host})
	if err != nil {
		return nil, fmt.Errorf("signing an RSA leaf for %q: %w", host, err)
	}
	return leaf, nil
}

// renew needs m.mu, or a minter that nobody else has.
func (m *minter) renew() error {
	config, err := mitm.NewConfig(m.ca, m.key)
	if err != nil {
		return fmt.Errorf("making the key of RSA leaves: %w", err)
	}
	config.SetValidity(validity)
	config.SetOrganization("rootcell")
	m.config, m.minted = config, 0
	return nil
}
