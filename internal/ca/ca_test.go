package ca_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/ca"
	"github.com/rootcell-ai/rootcell/internal/ca/rsaleaf"
	"github.com/rootcell-ai/rootcell/internal/hostname"
)

func name(t testing.TB, s string) hostname.Name {
	t.Helper()
	n, err := hostname.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func load(t testing.TB, options ...ca.Option) *ca.Authority {
	t.Helper()
	cert, key, err := ca.Create("default")
	if err != nil {
		t.Fatal(err)
	}
	a, err := ca.Load(cert, key, options...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestCreateMakesAConstrainedAuthority(t *testing.T) {
	cert := load(t).Certificate()
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		t.Errorf("key is %T, want ECDSA P-256", cert.PublicKey)
	}
	if !cert.IsCA || !cert.BasicConstraintsValid || cert.MaxPathLen != 0 || !cert.MaxPathLenZero {
		t.Errorf("IsCA %v, path length %d, want a CA with path length 0", cert.IsCA, cert.MaxPathLen)
	}
	if cert.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("key usage %b", cert.KeyUsage)
	}
	if len(cert.SubjectKeyId) == 0 || !bytes.Equal(cert.SubjectKeyId, cert.AuthorityKeyId) {
		t.Errorf("SKI %x and AKI %x, want them equal and present", cert.SubjectKeyId, cert.AuthorityKeyId)
	}
	if years := time.Until(cert.NotAfter).Hours() / 24 / 365; years < 9.9 || years > 10.1 {
		t.Errorf("valid for %.1f years, want ten", years)
	}
	if len(cert.SerialNumber.Bytes()) > 16 || cert.SerialNumber.Sign() <= 0 {
		t.Errorf("serial %x", cert.SerialNumber)
	}
}

func TestInstancesDoNotShareAnything(t *testing.T) {
	a, b := load(t), load(t)
	leaf, err := a.Leaf(name(t, "api.test"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(b.Certificate())
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: "api.test", Roots: roots}); err == nil {
		t.Error("a leaf of one instance verifies against the CA of another")
	}
}

func TestCreateRefusesInstanceNames(t *testing.T) {
	for _, instance := range []string{"", "A", "a/b", "a\nb", strings.Repeat("a", 33)} {
		if _, _, err := ca.Create(instance); err == nil {
			t.Errorf("Create(%q) succeeded", instance)
		}
	}
}

func TestLeafIsExactAndShortLived(t *testing.T) {
	a := load(t)
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate())
	long := strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + ".test"
	for _, host := range []string{"api.github.test", long} {
		certificate, err := a.Leaf(name(t, host))
		if err != nil {
			t.Fatal(err)
		}
		leaf := certificate.Leaf
		if diff := cmp.Diff([]string{host}, leaf.DNSNames); diff != "" {
			t.Errorf("names: %s", diff)
		}
		if len(leaf.IPAddresses)+len(leaf.URIs)+len(leaf.EmailAddresses) != 0 {
			t.Errorf("other names: %v %v %v", leaf.IPAddresses, leaf.URIs, leaf.EmailAddresses)
		}
		if leaf.IsCA || !leaf.BasicConstraintsValid {
			t.Error("the leaf may be taken for a CA")
		}
		if diff := cmp.Diff([]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, leaf.ExtKeyUsage); diff != "" {
			t.Errorf("extended key usage: %s", diff)
		}
		if life := leaf.NotAfter.Sub(leaf.NotBefore); life > 72*time.Hour {
			t.Errorf("valid for %s, want at most 72h", life)
		}
		if back := time.Since(leaf.NotBefore); back < 59*time.Minute || back > 61*time.Minute {
			t.Errorf("backdated by %s, want an hour", back)
		}
		if n := len(leaf.SerialNumber.Bytes()); n > 16 || n < 8 {
			t.Errorf("serial of %d octets", n)
		}
		if _, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok {
			t.Errorf("key is %T", leaf.PublicKey)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); err != nil {
			t.Error(err)
		}
		if err := leaf.VerifyHostname("x." + host); err == nil {
			t.Error("the leaf is good for a subdomain")
		}
	}
}

func TestLeafRefusesTheZeroName(t *testing.T) {
	if _, err := load(t).Leaf(hostname.Name{}); err == nil {
		t.Error("minted for no name")
	}
}

func TestLeavesAreCachedBoundedAndRenewed(t *testing.T) {
	now := time.Now()
	a := load(t, ca.WithCacheSize(2), ca.WithClock(func() time.Time { return now }))
	serial := func(host string) string {
		leaf, err := a.Leaf(name(t, host))
		if err != nil {
			t.Fatal(err)
		}
		return leaf.Leaf.SerialNumber.String()
	}
	first := serial("a.test")
	if serial("a.test") != first {
		t.Error("a second call minted again")
	}
	serial("b.test")
	serial("a.test") // used again: b.test is now the oldest
	serial("c.test")
	if serial("a.test") != first {
		t.Error("the most recently used leaf was dropped")
	}
	now = now.Add(46 * time.Hour)
	if serial("a.test") != first {
		t.Error("a leaf with more than a day left was replaced")
	}
	now = now.Add(2 * time.Hour)
	second := serial("a.test")
	if second == first {
		t.Error("a leaf about to expire was handed out")
	}
	now = now.Add(-10 * time.Hour)
	if serial("a.test") == second {
		t.Error("a leaf that is not valid yet was handed out after the clock went back")
	}
}

func TestConcurrentCallersShareOneMinting(t *testing.T) {
	a := load(t)
	serials := make([]string, 64)
	var wg sync.WaitGroup
	for i := range serials {
		wg.Go(func() {
			leaf, err := a.Leaf(name(t, "a.test"))
			if err != nil {
				t.Error(err)
				return
			}
			serials[i] = leaf.Leaf.SerialNumber.String()
		})
	}
	wg.Wait()
	for _, serial := range serials {
		if serial != serials[0] {
			t.Fatal("two leaves were minted for one name")
		}
	}
}

// handshake connects a client with config to a server that mints with a.
func handshake(t *testing.T, a *ca.Authority, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		conn := tls.Server(server, &tls.Config{GetCertificate: a.LeafFor})
		_ = conn.Handshake()
		server.Close()
	}()
	config.RootCAs = x509.NewCertPool()
	config.RootCAs.AddCert(a.Certificate())
	conn := tls.Client(client, config)
	err := conn.HandshakeContext(t.Context())
	return conn.ConnectionState(), err
}

func TestLeafForServesBothKindsOfClients(t *testing.T) {
	a := load(t, ca.WithRSA(rsaleaf.New))
	for client, test := range map[string]struct {
		config *tls.Config
		want   x509.PublicKeyAlgorithm
	}{
		"a modern client gets ECDSA": {&tls.Config{ServerName: "a.test"}, x509.ECDSA},
		"an RSA-only client gets RSA": {&tls.Config{ServerName: "a.test", MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}, x509.RSA},
	} {
		t.Run(client, func(t *testing.T) {
			state, err := handshake(t, a, test.config)
			if err != nil {
				t.Fatal(err)
			}
			leaf := state.PeerCertificates[0]
			if leaf.PublicKeyAlgorithm != test.want {
				t.Errorf("got %s, want %s", leaf.PublicKeyAlgorithm, test.want)
			}
			if diff := cmp.Diff([]string{"a.test"}, leaf.DNSNames); diff != "" {
				t.Error(diff)
			}
			if life := leaf.NotAfter.Sub(leaf.NotBefore); life > 72*time.Hour {
				t.Errorf("valid for %s, want at most 72h", life)
			}
			// RFC 5280, 4.1.2.2 counts the sign bit, so 159 bits fill 20 octets.
			if bits := leaf.SerialNumber.BitLen(); bits > 127 {
				t.Errorf("serial of %d bits, want at most 127", bits)
			}
		})
	}
}

func TestLeafForRefusesServerNamesThatAreNoHosts(t *testing.T) {
	a := load(t)
	for _, server := range []string{"", "127.0.0.1", "*.a.test", "a.test\x00.b.test", "single"} {
		if _, err := a.LeafFor(&tls.ClientHelloInfo{ServerName: server}); err == nil {
			t.Errorf("minted for %q", server)
		}
	}
}

func sign(t *testing.T, template *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	template.SerialNumber = big.NewInt(1)
	template.Subject = pkix.Name{CommonName: "test"}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestLoadRefusesAndSaysWhatToDo(t *testing.T) {
	good, goodKey, err := ca.Create("default")
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := ca.Create("default")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	hour := time.Hour
	valid := func(usage x509.KeyUsage, isCA bool, from, to time.Duration) []byte {
		return sign(t, &x509.Certificate{KeyUsage: usage, IsCA: isCA, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to)}, key)
	}
	for name, test := range map[string]struct {
		cert, key []byte
		want      string
	}{
		"no certificate":          {nil, goodKey, "no PEM block"},
		"no key":                  {good, nil, "no PEM block"},
		"two certificates":        {append(append([]byte{}, good...), good...), goodKey, "more than one"},
		"a key for a certificate": {goodKey, goodKey, `found "PRIVATE KEY"`},
		"a certificate for a key": {good, good, `found "CERTIFICATE"`},
		"broken DER":              {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}}), goodKey, "parsing the certificate"},
		"a huge file":             {bytes.Repeat([]byte{'a'}, 1<<20), goodKey, "larger than"},
		"another CA's key":        {good, otherKey, "does not belong"},
		"a leaf":                  {valid(x509.KeyUsageDigitalSignature, false, -hour, hour), keyPEM, "not a CA"},
		"a CA that may not sign":  {valid(x509.KeyUsageCRLSign, true, -hour, hour), keyPEM, "may not sign"},
		"an expired CA":           {valid(x509.KeyUsageCertSign, true, -2*hour, -hour), keyPEM, "expired"},
		"a CA of the future":      {valid(x509.KeyUsageCertSign, true, hour, 2*hour), keyPEM, "not valid before"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ca.Load(test.cert, test.key)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "rootcell provision") {
				t.Errorf("Load = %v, want an error with %q that says what to run", err, test.want)
			}
		})
	}
}

func TestLoadAcceptsAnRSAAuthority(t *testing.T) {
	for bits, ok := range map[int]bool{1024: false, 2048: true} {
		t.Setenv("GODEBUG", "rsa1024min=0")
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		a, err := ca.Load(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
			pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
		if ok != (err == nil) {
			t.Fatalf("Load of a CA with %d bits = %v", bits, err)
		}
		if !ok {
			continue
		}
		leaf, err := a.Leaf(name(t, "a.test"))
		if err != nil {
			t.Fatal(err)
		}
		if leaf.Leaf.NotAfter.After(a.Certificate().NotAfter) {
			t.Error("a leaf outlives its CA")
		}
	}
}

func TestStrictOpenSSLVerifies(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	a := load(t, ca.WithRSA(rsaleaf.New))
	leaf, err := a.Leaf(name(t, "a.test"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(file string, der []byte) string {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	root, end := write("ca.pem", a.Certificate().Raw), write("leaf.pem", leaf.Certificate[0])
	out, err := exec.CommandContext(t.Context(), openssl, "verify", "-x509_strict", "-purpose", "sslserver",
		"-verify_hostname", "a.test", "-CAfile", root, end).CombinedOutput()
	if err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}
}

func BenchmarkLeafCached(b *testing.B) {
	a := load(b)
	n := name(b, "a.test")
	for b.Loop() {
		if _, err := a.Leaf(n); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLeafMinted(b *testing.B) {
	a := load(b)
	for i := 0; b.Loop(); i++ {
		if _, err := a.Leaf(name(b, fmt.Sprintf("h%d.test", i))); err != nil {
			b.Fatal(err)
		}
	}
}
