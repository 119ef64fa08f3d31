package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

const (
	// leafLifetime is the whole validity of a leaf, its backdated hour included.
	leafLifetime = 72 * time.Hour
	// leafBackdate tolerates an agent whose clock is behind the firewall's.
	leafBackdate = time.Hour
	// leafRenew is how long before its end a cached leaf is replaced, so that a
	// connection never starts with one that is about to expire.
	leafRenew = 24 * time.Hour

	// defaultCacheSize bounds the leaves held in memory (about 4 KiB each).
	defaultCacheSize = 1024
)

// Minter makes leaf certificates of another kind than the Authority's own.
// It must be safe for concurrent use.
type Minter interface {
	Mint(hostname.Name) (*tls.Certificate, error)
}

// MinterMaker makes a Minter that signs with the CA it is given. It is called
// at most once, on the first client that needs it.
type MinterMaker func(ca *x509.Certificate, key crypto.Signer) (Minter, error)

// Option changes an Authority while Load makes it.
type Option func(*Authority)

// WithRSA sets what mints for clients that cannot verify ECDSA. Without it
// such clients fail their handshake. It is an option, and not an import, so
// that programs that only create CAs do not carry the code.
func WithRSA(maker MinterMaker) Option { return func(a *Authority) { a.rsaMaker = maker } }

// WithClock replaces time.Now.
func WithClock(now func() time.Time) Option { return func(a *Authority) { a.now = now } }

// WithCacheSize sets how many leaves of each kind are held; at least one.
func WithCacheSize(n int) Option {
	return func(a *Authority) { a.leaves, a.rsaLeaves = newCache(n), newCache(n) }
}

// Authority mints leaf certificates. It is safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	now  func() time.Time

	leaves *cache

	rsaMaker  MinterMaker
	rsa       onceMinter
	rsaLeaves *cache
}

func newAuthority(cert *x509.Certificate, key crypto.Signer) *Authority {
	return &Authority{
		cert: cert, key: key, now: time.Now,
		leaves: newCache(defaultCacheSize), rsaLeaves: newCache(defaultCacheSize),
	}
}

// Certificate returns the CA's own certificate. It must not be modified.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Leaf returns a certificate for exactly name: ECDSA P-256, server
// authentication only, valid for at most 72 hours. Concurrent callers share one
// minting. The result is shared and must not be modified.
func (a *Authority) Leaf(name hostname.Name) (*tls.Certificate, error) {
	return a.leaves.get(name, a.now(), a.mint)
}

// LeafFor is Leaf for tls.Config.GetCertificate: the name is the server name of
// hello. A client that offers no ECDSA gets an RSA leaf when WithRSA was given.
func (a *Authority) LeafFor(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name, err := hostname.Parse(hello.ServerName)
	if err != nil {
		return nil, fmt.Errorf("minting for server name %q: %w", hello.ServerName, err)
	}
	leaf, err := a.Leaf(name)
	if err != nil {
		return nil, err
	}
	if a.rsaMaker == nil || hello.SupportsCertificate(leaf) == nil {
		return leaf, nil
	}
	return a.rsaLeaves.get(name, a.now(), func(name hostname.Name, _ time.Time) (*tls.Certificate, error) {
		minter, err := a.rsa.get(func() (Minter, error) { return a.rsaMaker(a.cert, a.key) })
		if err != nil {
			return nil, fmt.Errorf("preparing RSA leaves: %w", err)
		}
		return minter.Mint(name)
	})
}

// mint signs one leaf.
//
// Invariant: the subject alternative names are exactly the one name asked for,
// never a wildcard, an address or a second name (TestLeafIsExactAndShortLived).
func (a *Authority) mint(name hostname.Name, now time.Time) (*tls.Certificate, error) {
	host := name.String()
	if host == "" {
		return nil, fmt.Errorf("minting for an empty name")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key for %q: %w", host, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	subject := pkix.Name{Organization: []string{"rootcell"}}
	if len(host) <= 64 { // X.520's upper bound of a common name
		subject.CommonName = host
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               subject,
		DNSNames:              []string{host},
		NotBefore:             now.Add(-leafBackdate),
		NotAfter:              earlier(now.Add(leafLifetime-leafBackdate), a.cert.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("signing a leaf for %q: %w", host, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back the leaf for %q: %w", host, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
