//go:build linux

package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

func TestNamesAgree(t *testing.T) {
	t.Parallel()
	c := newCell(t, netlab.Options{})
	run := func(id string, attack, oracle func(t *testing.T)) {
		t.Run(id, func(t *testing.T) {
			c.mark(t)
			attack(t)
			oracle(t)
		})
	}
	deny := func(id string, attack func(t *testing.T)) { run(id, attack, c.silent) }
	denyRequest := func(id string, attack func(t *testing.T)) { run(id, attack, c.unasked) }
	deny("A1 no SNI", func(t *testing.T) {
		r := c.agentInput(t, "GET / HTTP/1.1\r\nHost: ok.test.example\r\n\r\n", "openssl", "s_client", "-quiet", "-noservername", "-connect", netlab.InternetAddr+":443")
		if strings.Contains(r.stdout, "HTTP/1.1 200") {
			t.Errorf("answered %q", r.stdout)
		}
		c.denied(t, "no-sni")
	})
	deny("A1 an address as the URL", func(t *testing.T) {
		if r := c.curl(t, "-k", "https://"+netlab.InternetAddr+"/"); r.code == 0 {
			t.Errorf("got %+v", r)
		}
		c.denied(t, "no-sni")
	})
	for what, sni := range map[string]string{
		"underscore": "bad_label.test.example", "empty label": "a..test.example", "single label": "localhost", "percent": "evil.test.example%2eok",
		"long label": strings.Repeat("a", 64) + ".test.example", "NUL": "evil.test.example\x00.ok.test.example", "space": "ok.test.example .x",
		"trailing dot": "ok.test.example.", "UTF-8": "ok.t\xc3\xa9st.example", "address": "127.000.000.1", "over 253 bytes": strings.Repeat("aaaaaaaaa.", 26) + "example",
	} {
		deny("A2 malformed SNI "+what, func(t *testing.T) {
			if answer := c.say(t, renamedHello(t, sni)); !isAlert(answer) {
				t.Errorf("SNI %q was answered %q", sni, answer)
			}
			c.denied(t, "malformed")
		})
	}
	deny("A2 empty SNI", func(t *testing.T) {
		if answer := c.say(t, rawHello(serverNames(0, ""))); !isAlert(answer) {
			t.Errorf("answered %q", answer)
		}
		c.denied(t, "no-sni", "malformed")
	})
	t.Run("A2 upper case and A-labels are names like others", func(t *testing.T) {
		if got := c.code(t, "--resolve", "OK.Test.Example:443:"+netlab.InternetAddr, "https://OK.Test.Example/"); got != "200" {
			t.Errorf("upper case: %s", got)
		}
		c.mark(t)
		if got := c.code(t, "--resolve", "xn--gthub-n4a.com:443:"+netlab.InternetAddr, "https://xn--gthub-n4a.com/"); got != "403" {
			t.Errorf("an A-label that nobody listed: %s", got)
		}
		c.silent(t)
	})
	denyRequest("A3 domain fronting", func(t *testing.T) {
		for _, host := range []string{"no.test.example", "ok2.test.example"} {
			r := c.curl(t, "--http1.1", "-i", "-H", "Host: "+host, "https://ok.test.example/")
			if !strings.Contains(r.stdout, "403") && !strings.Contains(r.stdout, "421") {
				t.Errorf("Host %s: %+v", host, r)
			}
		}
		c.denied(t, "sni-host-mismatch")
	})
	deny("A4 denied SNI with allowed Host", func(t *testing.T) {
		r := c.curl(t, "--http1.1", "-i", "-H", "Host: ok.test.example", "https://no.test.example/")
		if strings.Contains(r.stdout, " 200 ") {
			t.Errorf("got %+v", r)
		}
		c.denied(t, "no-rule")
	})
	run("A7 ECH hides a denied name behind an allowed one", func(t *testing.T) {
		conn := tls.Client(c.raw(t, netlab.InternetAddr+":443"), &tls.Config{
			ServerName: "no.test.example", MinVersion: tls.VersionTLS13, EncryptedClientHelloConfigList: echConfigs(t, "ok.test.example"), RootCAs: c.pool(t),
		})
		if err := conn.Handshake(); err == nil || !strings.Contains(err.Error(), "ECH") {
			t.Errorf("handshake: %v, want the rejection of ECH", err)
		}
	}, func(t *testing.T) {
		if seen := c.world.Sightings("no.test"); len(seen) > 0 {
			t.Errorf("the inner name was acted on: %v", seen)
		}
		c.noRequest(t)
	})
	t.Run("A7 a GREASE ECH extension changes nothing", func(t *testing.T) {
		grease := extension(0xfe0d, append([]byte{0, 0, 1, 0, 1, 9, 0, 32}, append(make([]byte, 32), 0, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)...))
		if answer := c.say(t, rawHello(serverNames(0, "ok.test.example"), grease)); len(answer) < 6 || answer[0] != 22 {
			t.Errorf("the outer name was not served: %q", answer)
		}
		c.mark(t)
		c.say(t, rawHello(serverNames(0, "no.test.example"), grease))
		c.silent(t)
	})
	denyRequest("A8 early data", func(t *testing.T) {
		session := filepath.Join(t.TempDir(), "session")
		c.openssl(t, []string{"-tls1_3", "-sess_out", session}, "GET / HTTP/1.1\r\nHost: ok.test.example\r\nConnection: close\r\n\r\n")
		c.world.Forget()
		if text := c.agent(t, "openssl", "sess_id", "-in", session, "-noout", "-text").stdout; !strings.Contains(text, "TLSv1.3") || strings.Contains(text, "Max Early Data") && !strings.Contains(text, "Max Early Data: 0") {
			t.Errorf("the session offers early data:\n%s", text)
		}
		early := filepath.Join(t.TempDir(), "early")
		if err := os.WriteFile(early, []byte("GET /early HTTP/1.1\r\nHost: ok.test.example\r\n\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := c.openssl(t, []string{"-tls1_3", "-sess_in", session, "-early_data", early}, "")
		if strings.Contains(r.stdout, "Early data was accepted") {
			t.Error("early data was accepted")
		}
	})
	run("A9 a session of one name for another", func(t *testing.T) {
		cache := &anySession{}
		for i, name := range []string{"ok.test.example", "ok.test.example", "scoped.test.example", "no.test.example"} {
			conn := tls.Client(c.raw(t, netlab.InternetAddr+":443"), &tls.Config{ServerName: name, InsecureSkipVerify: true, ClientSessionCache: cache})
			answer := exchange(t, conn, "GET /resumed HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n")
			if resumed := conn.ConnectionState().DidResume; resumed != (i == 1) {
				t.Errorf("connection %d, to %s: resumed %v", i, name, resumed)
			}
			if allowed := strings.Contains(answer, " 200 "); allowed != (i < 2) {
				t.Errorf("connection %d, to %s: %q", i, name, answer)
			}
			_ = conn.Close()
		}
	}, func(t *testing.T) {
		if seen := c.world.Sightings("https"); len(seen) != 2 {
			t.Errorf("the far side saw %v", seen)
		}
	})
	t.Run("A10 a ClientHello in pieces is read the same", func(t *testing.T) {
		for name, want := range map[string]string{"ok.test.example": " 200 ", "no.test.example": " 403 "} {
			conn := tls.Client(&oneByteRecords{Conn: c.raw(t, netlab.InternetAddr+":443")}, &tls.Config{ServerName: name, RootCAs: c.pool(t)})
			if answer := exchange(t, conn, "GET / HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n"); !strings.Contains(answer, want) {
				t.Errorf("%s: %q, want %q", name, answer, want)
			}
		}
	})
	for what, hello := range map[string][]byte{
		"two extensions":     rawHello(serverNames(0, "ok.test.example"), serverNames(0, "no.test.example")),
		"the same twice":     rawHello(serverNames(0, "ok.test.example"), serverNames(0, "ok.test.example")),
		"two names in one":   rawHello(serverNames(0, "ok.test.example", "no.test.example")),
		"a name of no type":  rawHello(serverNames(1, "ok.test.example")),
		"length beyond it":   rawHello(extension(0, []byte{0, 99, 0, 0, 3, 'a', '.', 'b'})),
		"bytes after a name": rawHello(extension(0, append([]byte{0, 18, 0, 0, 15}, "ok.test.examplexx"...))),
	} {
		deny("A11 "+what, func(t *testing.T) {
			if answer := c.say(t, hello); !isAlert(answer) {
				t.Errorf("answered %q", answer)
			}
			c.denied(t, "malformed", "no-sni")
		})
	}
	deny("A12 another name after HelloRetryRequest", func(t *testing.T) {
		modern := [][]byte{extension(43, []byte{2, 3, 4}), extension(51, []byte{0, 0})}
		first := rawHello(append(modern, serverNames(0, "ok.test.example"))...)
		second := rawHello(append(modern, serverNames(0, "no.test.example"))...)
		conn := c.raw(t, netlab.InternetAddr+":443")
		_, _ = conn.Write(first)
		head := make([]byte, 5)
		if _, err := io.ReadFull(conn, head); err != nil || head[0] != 22 {
			t.Fatalf("no HelloRetryRequest: %q, %v", head, err)
		}
		_, _ = conn.Write(second)
		rest, _ := io.ReadAll(conn)
		if !bytes.Contains(rest, []byte{21, 3, 3, 0, 2, 2}) {
			t.Errorf("the changed name was not refused: %q", rest)
		}
	})
	denyRequest("A12 renegotiation", func(t *testing.T) {
		r := c.openssl(t, []string{"-tls1_2"}, "R\n", "GET /renegotiated HTTP/1.1\r\nHost: ok.test.example\r\n\r\n")
		if strings.Contains(r.stdout, " 200 ") {
			t.Errorf("went on after a renegotiation:\n%s", r.stdout)
		}
	})
	denyRequest("A12 a flood of KeyUpdate", func(t *testing.T) {
		lines := make([]string, 40)
		for i := range lines {
			lines[i] = "k\n"
		}
		r := c.openssl(t, []string{"-tls1_3"}, append(lines, "GET /updated HTTP/1.1\r\nHost: ok.test.example\r\n\r\n")...)
		if strings.Contains(r.stdout, " 200 ") {
			t.Errorf("went on after forty updates of the key:\n%s", r.stdout)
		}
	})
	for _, args := range []string{"-tls1", "-tls1_1", "-tls1_2 -cipher NULL:aNULL:@SECLEVEL=0", "-tls1_2 -cipher DES-CBC3-SHA:RC4-SHA:@SECLEVEL=0"} {
		deny("A13 "+args, func(t *testing.T) {
			if !strings.Contains(args, "cipher") {
				args += " -cipher ALL:@SECLEVEL=0"
			}
			if r := c.openssl(t, strings.Fields(args), ""); strings.Contains(r.stdout, "BEGIN CERTIFICATE") {
				t.Errorf("the handshake went on:\n%s", r.stdout)
			}
		})
	}
	deny("A13 SSLv2", func(t *testing.T) {
		if answer := c.say(t, []byte("\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80")); len(answer) > 0 {
			t.Errorf("answered %q", answer)
		}
		c.denied(t, "not-tls")
	})
	for _, alpn := range []string{"ftp", "h3", "smtp", "acme-tls/1"} {
		deny("A14 ALPN "+alpn, func(t *testing.T) {
			if r := c.openssl(t, []string{"-alpn", alpn}, "GET / HTTP/1.1\r\nHost: ok.test.example\r\n\r\n"); strings.Contains(r.stdout, " 200 ") || !strings.Contains(r.stderr, "no application protocol") {
				t.Errorf("got %+v", r)
			}
			c.denied(t, "tls-handshake")
		})
	}
	denyRequest("A14 HTTP/1.1 where h2 was agreed", func(t *testing.T) {
		exchange(t, c.tls(t, "ok.test.example", "h2"), "GET /confused HTTP/1.1\r\nHost: ok.test.example\r\n\r\n")
	})
	denyRequest("A15 a shell instead of HTTP", func(t *testing.T) {
		if answer := exchange(t, c.tls(t, "ok.test.example"), "\x00\x01\x02 id; uname -a\n\n"); strings.Contains(answer, " 200 ") {
			t.Errorf("answered %q", answer)
		}
		c.denied(t, "not-http", "malformed")
	})
	denyRequest("A16 TLS inside TLS", func(t *testing.T) {
		inner := tls.Client(c.tls(t, "ok.test.example"), &tls.Config{ServerName: "no.test.example", InsecureSkipVerify: true})
		if err := inner.Handshake(); err == nil {
			t.Error("a handshake inside the connection succeeded")
		}
		c.denied(t, "not-http", "malformed")
	})
	t.Run("A21 the leaf is narrow", func(t *testing.T) {
		serials := map[string]bool{}
		for _, name := range []string{"ok.test.example", "ok2.test.example", "no.test.example"} {
			leaf := c.tls(t, name).ConnectionState().PeerCertificates[0]
			serials[fmt.Sprint(leaf.SerialNumber)] = leaf.SerialNumber.BitLen() > 64
			if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != name || leaf.IsCA || len(leaf.IPAddresses) > 0 || leaf.NotAfter.Sub(leaf.NotBefore) > 73*time.Hour ||
				len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
				t.Errorf("leaf for %s: names %v, CA %v, usages %v, %s to %s", name, leaf.DNSNames, leaf.IsCA, leaf.ExtKeyUsage, leaf.NotBefore, leaf.NotAfter)
			}
		}
		if len(serials) != 3 {
			t.Errorf("serial numbers %v", serials)
		}
	})
	t.Run("A22 the CA's key is the daemon's alone", func(t *testing.T) {
		info, err := os.Stat(filepath.Join(c.Dir, "ca.key"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("ca.key: %v, %v", info.Mode(), err)
		}
		r := c.agent(t, "setpriv", "--reuid", "1000", "--clear-groups", "cat", filepath.Join(c.Dir, "ca.key"))
		if r.code == 0 || strings.Contains(c.openssl(t, []string{"-showcerts"}, "").stdout, "PRIVATE") {
			t.Error("the key is to be had")
		}
	})
}

func TestUpstreamCertificates(t *testing.T) {
	t.Parallel()
	const domain = ".cert.test.example"
	c := newCell(t, netlab.Options{DNS: "cert.test.example\n", HTTPS: "*.cert.test.example\n", SSH: "\n"})
	leaf := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	}
	authority := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	}
	serve := func(t *testing.T, host string, certificate *tls.Certificate) {
		c.world.Host(t, host+domain, nil)
		c.world.TLS(host+domain, &tls.Config{Certificates: []tls.Certificate{*certificate}, NextProtos: []string{"h2", "http/1.1"}})
	}
	foreign := netlab.ForeignRoot(t)
	constrained := authority("constrained")
	constrained.PermittedDNSDomainsCritical, constrained.PermittedDNSDomains = true, []string{"elsewhere.example"}
	address := leaf("address" + domain)
	address.DNSNames, address.IPAddresses = nil, []net.IP{net.ParseIP(netlab.InternetAddr)}
	common := leaf("common" + domain)
	common.DNSNames = nil
	clientOnly := leaf("client" + domain)
	clientOnly.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	future := leaf("future" + domain)
	future.NotBefore, future.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	wide := leaf("wide" + domain)
	wide.DNSNames = []string{"*.test.example"}
	for host, certificate := range map[string]*tls.Certificate{
		"wronghost":   c.world.Certify(t, leaf("other.test.example"), nil),
		"untrusted":   c.world.Certify(t, leaf("untrusted"+domain), foreign),
		"selfsigned":  netlab.SelfSigned(t, "selfsigned"+domain),
		"constrained": c.world.Certify(t, leaf("constrained"+domain), c.world.Certify(t, constrained, nil)),
		"notaca":      c.world.Certify(t, leaf("notaca"+domain), c.world.Certify(t, leaf("middle.test.example"), nil)),
		"address":     c.world.Certify(t, address, nil),
		"common":      c.world.Certify(t, common, nil),
		"client":      c.world.Certify(t, clientOnly, nil),
		"future":      c.world.Certify(t, future, nil),
		"wide":        c.world.Certify(t, wide, nil),
	} {
		t.Run("A18 "+host, func(t *testing.T) {
			serve(t, host, certificate)
			for _, version := range []string{"--http1.1", "--http2"} {
				c.mark(t)
				r := c.agentInput(t, "secret", "curl", "-sS", "-m", "10", "-i", version, "--cacert", c.daemon.CAFile, "--data-binary", "@-", "https://"+host+domain+"/")
				if !strings.Contains(r.stdout, " 502") || !strings.Contains(r.stdout, "upstream-cert") {
					t.Errorf("%s: %+v", version, r)
				}
				c.noRequest(t)
				c.denied(t, "upstream-cert")
			}
		})
	}
	t.Run("A18 an expired certificate", func(t *testing.T) {
		c.world.Host(t, "expired"+domain, nil)
		c.world.Expire(t, "expired"+domain)
		c.mark(t)
		if r := c.curl(t, "-i", "-d", "secret", "https://expired"+domain+"/"); !strings.Contains(r.stdout, "upstream-cert") {
			t.Errorf("got %+v", r)
		}
		c.noRequest(t)
	})
	t.Run("A20 a server of the attacker's, and a client that does not mind", func(t *testing.T) {
		c.mark(t)
		if r := c.curl(t, "-k", "-i", "--resolve", "untrusted"+domain+":443:11.22.33.66", "-d", "secret", "https://untrusted"+domain+"/"); !strings.Contains(r.stdout, "upstream-cert") {
			t.Errorf("got %+v", r)
		}
		c.noRequest(t)
	})
	t.Run("A19 revocation is not looked up", func(t *testing.T) {
		revoked := leaf("revoked" + domain)
		revoked.OCSPServer, revoked.CRLDistributionPoints = []string{"http://ocsp.test.example/"}, []string{"http://crl.test.example/crl"}
		serve(t, "revoked", c.world.Certify(t, revoked, nil))
		c.mark(t)
		if got := c.code(t, "https://revoked"+domain+"/"); got != "200" {
			t.Errorf("status %s", got)
		}
		if seen := append(c.world.Sightings("ocsp"), append(c.world.Sightings("crl"), c.world.Sightings("tcp")...)...); len(seen) > 0 {
			t.Errorf("the far side saw %v", seen)
		}
	})
	t.Run("A17 a server that wants a client's certificate", func(t *testing.T) {
		host := "mutual" + domain
		c.world.Host(t, host, nil)
		c.world.TLS(host, &tls.Config{Certificates: []tls.Certificate{*c.world.Certify(t, leaf(host), nil)}, ClientAuth: tls.RequireAnyClientCert})
		requested := false
		conn := tls.Client(c.raw(t, netlab.InternetAddr+":443"), &tls.Config{ServerName: host, RootCAs: c.pool(t), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			requested = true
			return netlab.SelfSigned(t, "agent.example"), nil
		}})
		c.mark(t)
		if answer := exchange(t, conn, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n"); !strings.Contains(answer, " 502 ") {
			t.Errorf("answered %q", answer)
		}
		if requested {
			t.Error("the client was asked for its certificate")
		}
		c.noRequest(t)
		c.denied(t, "upstream-unreachable", "upstream-cert", "upstream-protocol")
	})
	t.Run("A23 another instance's CA convinces nobody", func(t *testing.T) {
		c.world.Host(t, "plain"+domain, nil)
		if got := c.code(t, "https://plain"+domain+"/"); got != "200" {
			t.Errorf("own CA: %s", got)
		}
		other := filepath.Join(t.TempDir(), "other.pem")
		if err := os.WriteFile(other, netlab.OtherCA(t), 0o644); err != nil {
			t.Fatal(err)
		}
		if r := c.agent(t, "curl", "-sS", "--cacert", other, "https://plain"+domain+"/"); r.code != 60 {
			t.Errorf("another instance's CA: %+v, want exit 60", r)
		}
	})
}
