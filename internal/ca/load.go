package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// maxPEM bounds the files that Load parses, in bytes.
const maxPEM = 64 << 10

// remedy ends every error of Load: the user has one way out of each of them.
const remedy = "delete ca.pem and ca.key in the instance's pki folder and run `rootcell provision` to make a new CA"

// Load checks a CA certificate and its key (PEM: PKCS #8, SEC 1 or PKCS #1) and
// returns the Authority that signs with them. It refuses a certificate that is
// no CA, may not sign, is expired or not yet valid, or belongs to another key,
// and says what to do. RSA keys of at least 2048 bits are accepted because CAs
// taken over from other installations have them.
func Load(certPEM, keyPEM []byte, options ...Option) (*Authority, error) {
	cert, err := parseCertificate(certPEM)
	if err != nil {
		return nil, fmt.Errorf("loading the CA certificate: %w; %s", err, remedy)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("loading the CA key: %w; %s", err, remedy)
	}
	a := newAuthority(cert, key)
	for _, option := range options {
		option(a)
	}
	if err := check(cert, key, a.now()); err != nil {
		return nil, fmt.Errorf("checking the CA %q: %w; %s", cert.Subject.CommonName, err, remedy)
	}
	return a, nil
}

func check(cert *x509.Certificate, key crypto.Signer, now time.Time) error {
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return errors.New("the certificate is not a CA certificate")
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("the certificate may not sign other certificates")
	case now.Before(cert.NotBefore):
		return fmt.Errorf("it is not valid before %s and the clock says %s (set the clock if that is wrong)",
			cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case !now.Before(cert.NotAfter):
		return fmt.Errorf("it expired on %s and the clock says %s (set the clock if that is wrong)",
			cert.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encoding the public half of the key: %w", err)
	}
	if !bytes.Equal(pub, cert.RawSubjectPublicKeyInfo) {
		return errors.New("the key does not belong to the certificate")
	}
	return nil
}

func parseCertificate(text []byte) (*x509.Certificate, error) {
	block, err := onlyBlock(text)
	if err != nil {
		return nil, err
	}
	if block.Type != certType {
		return nil, fmt.Errorf("expected a PEM block %q, found %q", certType, block.Type)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parsing the certificate: %w", err)
	}
	return cert, nil
}

func parseKey(text []byte) (crypto.Signer, error) {
	block, err := onlyBlock(text)
	if err != nil {
		return nil, err
	}
	var parsed any
	switch block.Type {
	case keyType:
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("expected a PEM block %q, found %q", keyType, block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("parsing the key: %w", err)
	}
	switch key := parsed.(type) {
	case *ecdsa.PrivateKey:
		return key, nil
	case *rsa.PrivateKey:
		if key.N.BitLen() < 2048 {
			return nil, fmt.Errorf("the RSA key has %d bits, at least 2048 are needed", key.N.BitLen())
		}
		return key, nil
	default:
		return nil, fmt.Errorf("keys of type %T are not supported, use ECDSA P-256", parsed)
	}
}

// onlyBlock refuses a file with several PEM blocks: which of them counts would
// otherwise depend on their order.
func onlyBlock(text []byte) (*pem.Block, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("the file is larger than %d bytes", maxPEM)
	}
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block found")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, fmt.Errorf("more than one PEM block found, the second is %q", next.Type)
	}
	return block, nil
}
