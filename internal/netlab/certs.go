//go:build linux

package netlab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/ca"
)

// Certify issues a certificate from the template, which may leave out the serial number and the dates, signed by the
// private root or by the given parent.
func (w *World) Certify(tb testing.TB, template *x509.Certificate, parent *tls.Certificate) *tls.Certificate {
	tb.Helper()
	if parent == nil {
		return certify(tb, template, w.rootCert, w.rootKey)
	}
	signer, err := x509.ParseCertificate(parent.Certificate[0])
	if err != nil {
		tb.Fatal(err)
	}
	c := certify(tb, template, signer, parent.PrivateKey)
	c.Certificate = append(c.Certificate, parent.Certificate...)
	return c
}

// certify issues a certificate, self-signed where there is no signer.
func certify(tb testing.TB, template, signer *x509.Certificate, key any) *tls.Certificate {
	tb.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	if template.SerialNumber == nil {
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
	}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	if signer == nil {
		signer, key = template, own
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, &own.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: own}
}

// SelfSigned is a server's certificate for the name that nobody else vouches for.
func SelfSigned(tb testing.TB, name string) *tls.Certificate {
	tb.Helper()
	return certify(tb, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature}, nil, nil)
}

// ForeignRoot is a root that the firewall does not trust.
func ForeignRoot(tb testing.TB) *tls.Certificate {
	tb.Helper()
	return certify(tb, &x509.Certificate{Subject: pkix.Name{CommonName: "foreign root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
}

// OtherCA is the CA certificate (PEM) of another instance.
func OtherCA(tb testing.TB) []byte {
	tb.Helper()
	certPEM, _, err := ca.Create("other")
	if err != nil {
		tb.Fatal(err)
	}
	return certPEM
}
