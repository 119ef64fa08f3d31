//go:build linux

package agentprobe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/guest/connect"
	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

const denyHeader = "Rootcell-Deny"

// root tries what only root may do.
func (p *prober) root(context.Context) (string, error) {
	if uid := os.Geteuid(); uid != 0 {
		return "", fmt.Errorf("the probe runs as user %d, not as root", uid)
	}
	dir, err := os.MkdirTemp("", "rootcell-probe-*")
	if err != nil {
		return "", fmt.Errorf("making a directory: %w", err)
	}
	defer os.Remove(dir)
	if err := unix.Mount("rootcell", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k"); err != nil {
		return "", fmt.Errorf("mounting a file system: %w", err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		return "", fmt.Errorf("unmounting it: %w", err)
	}
	return "user 0 mounts file systems and sends raw frames", nil
}

// oneCard looks for network hardware besides the link, and for a socket family
// that would lead to the host.
func (p *prober) oneCard(context.Context) (string, error) {
	cards, err := filepath.Glob("/sys/class/net/*/device")
	if err != nil {
		return "", err
	}
	var names []string
	for _, card := range cards {
		names = append(names, filepath.Base(filepath.Dir(card)))
	}
	if len(names) != 1 || names[0] != guestcfg.InterfaceCell {
		return "", fmt.Errorf("network cards are %q, not %q alone", names, guestcfg.InterfaceCell)
	}
	if fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
		defer unix.Close(fd)
		if unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: 22}) == nil {
			return "", errors.New("the host answers on a virtual socket")
		}
	}
	return "one network card, no way to the host beside it", nil
}

func (p *prober) exchange(ctx context.Context, name string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	client := dns.Client{Timeout: workTimeout}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	m.SetEdns0(1232, false)
	answer, _, err := client.ExchangeContext(ctx, m, netip.AddrPortFrom(p.firewall, 53).String())
	if err != nil {
		return nil, fmt.Errorf("asking for %q: %w", name, err)
	}
	return answer, nil
}

func (p *prober) dnsAllowed(ctx context.Context) (string, error) {
	if p.req.AllowedDNS == "" {
		return "", errSkip("no host is given whose name may be resolved")
	}
	answer, err := p.exchange(ctx, p.req.AllowedDNS)
	if err != nil {
		return "", err
	}
	if answer.Rcode != dns.RcodeSuccess || len(answer.Answer) == 0 {
		return "", fmt.Errorf("%s: %s with %d records", p.req.AllowedDNS, dns.RcodeToString[answer.Rcode], len(answer.Answer))
	}
	return fmt.Sprintf("%s has %d records", p.req.AllowedDNS, len(answer.Answer)), nil
}

func (p *prober) dnsDenied(ctx context.Context) (string, error) {
	if p.req.DeniedDNS == "" {
		return "", errSkip("no host is given whose name is denied")
	}
	answer, err := p.exchange(ctx, p.req.DeniedDNS)
	if err != nil {
		return "", err
	}
	if answer.Rcode != dns.RcodeRefused || len(answer.Answer) != 0 {
		return "", fmt.Errorf("%s: %s with %d records, not REFUSED", p.req.DeniedDNS, dns.RcodeToString[answer.Rcode], len(answer.Answer))
	}
	reason := "without a reason"
	if opt := answer.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if ede, ok := o.(*dns.EDNS0_EDE); ok {
				reason = fmt.Sprintf("code %d", ede.InfoCode)
			}
		}
	}
	return fmt.Sprintf("%s is REFUSED, %s", p.req.DeniedDNS, reason), nil
}

// secure opens a TLS connection to an address that nobody has: whoever answers
// is the firewall, and whatever comes back it fetched by name.
func (p *prober) secure(ctx context.Context, config *tls.Config) (*tls.Conn, error) {
	dialer := net.Dialer{}
	raw, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(nowhere, 443).String())
	if err != nil {
		return nil, &notInterceptedError{err}
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// notInterceptedError tells a firewall that is not there from one that closes
// a connection: only the second is a decision.
type notInterceptedError struct{ err error }

func (e *notInterceptedError) Error() string {
	return "the firewall takes no HTTPS connection: " + e.err.Error()
}
func (e *notInterceptedError) Unwrap() error { return e.err }

func notIntercepted(err error) bool { return errors.As(err, new(*notInterceptedError)) }

func (p *prober) roots() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(p.req.CACert)) {
		return nil, errors.New("reading the request: ca_cert holds no certificate")
	}
	return pool, nil
}

// get requests / of host, trusting this instance's CA alone.
func (p *prober) get(ctx context.Context, host string) (*http.Response, error) {
	roots, err := p.roots()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	transport := &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return p.secure(ctx, &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12})
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/", nil)
	if err != nil {
		return nil, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	_, err = io.CopyN(io.Discard, response.Body, 4096)
	response.Body.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return response, nil
}

func (p *prober) httpsAllowed(ctx context.Context) (string, error) {
	if p.req.AllowedHTTPS == "" {
		return "", errSkip("no host is given that HTTPS may reach")
	}
	response, err := p.get(ctx, p.req.AllowedHTTPS)
	if err != nil {
		return "", fmt.Errorf("requesting https://%s/: %w", p.req.AllowedHTTPS, err)
	}
	if code := response.Header.Get(denyHeader); code != "" {
		return "", fmt.Errorf("https://%s/ is denied: %s", p.req.AllowedHTTPS, code)
	}
	return fmt.Sprintf("https://%s/ answers %d", p.req.AllowedHTTPS, response.StatusCode), nil
}

func (p *prober) httpsDenied(ctx context.Context) (string, error) {
	if p.req.DeniedHTTPS == "" {
		return "", errSkip("no host is given that HTTPS may not reach")
	}
	response, err := p.get(ctx, p.req.DeniedHTTPS)
	if notIntercepted(err) {
		return "", err
	}
	if err != nil {
		return fmt.Sprintf("https://%s/ is closed: %v", p.req.DeniedHTTPS, err), nil
	}
	code := response.Header.Get(denyHeader)
	if response.StatusCode != http.StatusForbidden || code == "" {
		return "", fmt.Errorf("https://%s/ answers %d without a denial", p.req.DeniedHTTPS, response.StatusCode)
	}
	return fmt.Sprintf("https://%s/ is denied: %s", p.req.DeniedHTTPS, code), nil
}

func (p *prober) httpsNoName(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	//nolint:gosec // whoever completes the handshake, the boundary is broken
	conn, err := p.secure(ctx, &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		conn.Close()
		return "", errors.New("a TLS connection without a server name was accepted")
	}
	if notIntercepted(err) {
		return "", err
	}
	return "a TLS connection without a server name is closed", nil
}

// authority looks at the certificate that the firewall shows.
func (p *prober) authority(ctx context.Context) (string, error) {
	host := p.req.AllowedHTTPS
	if host == "" {
		host = p.req.DeniedHTTPS
	}
	if host == "" {
		return "", errSkip("no host is given whose certificate to look at")
	}
	roots, err := p.roots()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	conn, err := p.secure(ctx, &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err != nil {
		if p.req.AllowedHTTPS == "" && !notIntercepted(err) && !errors.As(err, new(*tls.CertificateVerificationError)) {
			return "", errSkip("denied connections are closed before a certificate is shown")
		}
		return "", fmt.Errorf("connecting to %s: %w", host, err)
	}
	defer conn.Close()
	leaf := conn.ConnectionState().PeerCertificates[0]
	switch life := leaf.NotAfter.Sub(leaf.NotBefore); {
	case len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != host || len(leaf.IPAddresses) != 0:
		return "", fmt.Errorf("the certificate is for %q, not for %q alone", leaf.DNSNames, host)
	case leaf.IsCA:
		return "", errors.New("the certificate is one of a CA")
	case life > 74*time.Hour:
		return "", fmt.Errorf("the certificate is valid for %s", life)
	}
	return fmt.Sprintf("the certificate of %s comes from this instance's CA and names it alone", host), nil
}

func (p *prober) proxy() string { return netip.AddrPortFrom(p.firewall, 8080).String() }

func (p *prober) sshAllowed(ctx context.Context) (string, error) {
	if p.req.AllowedSSH == "" {
		return "", errSkip("no host is given that SSH may reach")
	}
	ctx, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	conn, reader, err := connect.Open(ctx, p.proxy(), p.req.AllowedSSH, 22)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "SSH-2.0-rootcell_probe\r\n"); err != nil {
		return "", fmt.Errorf("greeting %s: %w", p.req.AllowedSSH, err)
	}
	line, err := reader.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
		return "", fmt.Errorf("%s did not greet as an SSH server: %w", p.req.AllowedSSH, err)
	}
	return fmt.Sprintf("%s greets as an SSH server", p.req.AllowedSSH), nil
}

func (p *prober) sshDenied(ctx context.Context) (string, error) {
	if p.req.DeniedSSH == "" {
		return "", errSkip("no host is given that SSH may not reach")
	}
	ctx, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	conn, _, err := connect.Open(ctx, p.proxy(), p.req.DeniedSSH, 22)
	if err == nil {
		conn.Close()
		return "", fmt.Errorf("a tunnel to %s was opened", p.req.DeniedSSH)
	}
	var denied *connect.DeniedError
	if !errors.As(err, &denied) {
		return "", err
	}
	return fmt.Sprintf("%s is denied: %s", p.req.DeniedSSH, denied.Code), nil
}
