// Package ca makes and uses an instance's certificate authority: Create makes
// one on the host, Load takes it into the firewall, and an Authority mints the
// short-lived leaf certificates with which the firewall answers for the hosts
// that the policy allows. It holds no policy: whoever asks for a leaf has
// decided already that the name is allowed.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

const (
	// lifetime of an instance's CA. The key never leaves the firewall and the
	// certificate is trusted in one agent only, so a long life costs nothing and
	// spares every instance a surprise.
	lifetime = 10 * 365 * 24 * time.Hour
	// backdate lets a guest whose clock is behind the host's (a suspended laptop,
	// a virtual machine's first second) accept the CA.
	backdate = 24 * time.Hour

	certType = "CERTIFICATE"
	keyType  = "PRIVATE KEY"

	maxInstance = 32
)

// Create makes the certificate authority of instance: a self-signed ECDSA
// P-256 certificate valid for ten years that may sign leaves only (path length
// 0), and its PKCS #8 key, both as PEM. Each call makes a new key. The caller
// stores the key with mode 0600 and never gives it to the agent.
func Create(instance string) (certPEM, keyPEM []byte, err error) {
	if err := checkInstance(instance); err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making the key of the CA of instance %q: %w", instance, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"rootcell"}, CommonName: "rootcell " + instance + " CA"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            0,
		MaxPathLenZero:        true,
		// Python's and OpenSSL's strict modes refuse a CA without both identifiers
		// (RFC 5280, 4.2.1.1 and 4.2.1.2). Go leaves the second out of
		// self-signed certificates unless it is given.
		SubjectKeyId:   id,
		AuthorityKeyId: id,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("signing the CA of instance %q: %w", instance, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the key of the CA of instance %q: %w", instance, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: certType, Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: keyDER}), nil
}

// checkInstance keeps the common name printable and within X.520's 64 octets.
// The grammar of instance names belongs to the configuration.
func checkInstance(instance string) error {
	if instance == "" || len(instance) > maxInstance {
		return fmt.Errorf("making a CA for instance %q: the name must have 1 to %d characters", instance, maxInstance)
	}
	for _, r := range instance {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return fmt.Errorf("making a CA for instance %q: only a-z, 0-9 and - are allowed in the name", instance)
		}
	}
	return nil
}

// newSerial returns a random positive serial of at most 16 octets, well below
// the 20 that RFC 5280, 4.1.2.2 allows.
func newSerial() (*big.Int, error) {
	octets := make([]byte, 16)
	for {
		if _, err := rand.Read(octets); err != nil {
			return nil, fmt.Errorf("reading randomness for a serial number: %w", err)
		}
		octets[0] &= 0x7f // the sign bit would cost a seventeenth octet
		if serial := new(big.Int).SetBytes(octets); serial.Sign() > 0 {
			return serial, nil
		}
	}
}

// keyID is method 1 of RFC 7093: the left 160 bits of the SHA-256 of the public key.
func keyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &spki); err != nil {
		return nil, fmt.Errorf("reading an encoded public key: %w", err)
	}
	sum := sha256.Sum256(spki.Key.Bytes)
	return sum[:20], nil
}
