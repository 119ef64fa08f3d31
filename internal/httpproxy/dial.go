package httpproxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/deny"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/upstream"
)

const httpsPort = 443

// upstreamConn is a verified connection to the server of a name.
type upstreamConn struct {
	*tls.Conn
	link       *upstreamLink
	br         *bufio.Reader
	address    string
	protocol   string // protoH1 or protoH2
	generation uint64 // of the policy under which it was opened
	idleSince  time.Time
	used       bool // carried a request before
	dead       atomic.Bool
}

// close ends the connection at once, without a goodbye: safe from any goroutine.
func (u *upstreamConn) close() {
	u.dead.Store(true)
	_ = u.link.Conn.Close()
}

// saidGoodbye reports whether the end of the server's side, once read, came with
// the closing alert of TLS. Without one it may be a cut.
func (u *upstreamConn) saidGoodbye() bool { return !u.link.ended.Load() }

// upstreamLink lies under the server's TLS. crypto/tls does not tell a closing
// alert from the bare end of the connection; having had to read that end does.
type upstreamLink struct {
	net.Conn
	ended atomic.Bool
}

func (l *upstreamLink) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if err != nil {
		l.ended.Store(true)
	}
	return n, err
}

// dial opens a connection to the name's own addresses.
//
// Invariant: it is returned only after its certificate was verified for the
// name, so no byte of a request goes to an unverified server (TestUpstreamCertificates, A18).
func (s *Server) dial(ctx context.Context, name hostname.Name, protocols []string) (*upstreamConn, error) {
	generation := s.cfg.Gate.Current().Generation
	ctx, cancel := context.WithTimeout(ctx, s.limits.Dial)
	defer cancel()
	raw, err := s.cfg.Dialer.Dial(ctx, name, httpsPort)
	if err != nil {
		return nil, err
	}
	link := &upstreamLink{Conn: raw}
	c := tls.Client(link, &tls.Config{
		ServerName: name.String(), RootCAs: s.cfg.Roots, NextProtos: protocols,
		MinVersion: tls.VersionTLS12, ClientSessionCache: s.pool.sessions,
		DynamicRecordSizingDisabled: true,
	})
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	u := &upstreamConn{
		Conn: c, link: link, address: raw.RemoteAddr().String(), protocol: c.ConnectionState().NegotiatedProtocol,
		generation: generation,
	}
	if u.protocol != protoH2 {
		u.protocol = protoH1
		u.br = bufio.NewReaderSize(c, readBuffer)
	}
	return u, nil
}

// readBuffer holds heads and small bodies; large bodies go round it.
const readBuffer = 4 << 10

// dialDenial says what is wrong upstream in the words of a denial.
func dialDenial(err error) *deny.Error {
	var special *upstream.SpecialAddressError
	var invalid *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var op *net.OpError
	var network net.Error
	switch {
	case errors.As(err, &special):
		return deny.For(policy.SpecialAddress, special.Error())
	case errors.As(err, &invalid), isX509(err):
		return deny.For(policy.UpstreamCert, err.Error())
	case errors.As(err, &record), errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error"):
		// The operations of crypto/tls for alerts received and sent; among them is a
		// server that wants a client's certificate, which nobody has (A17).
		return deny.For(policy.UpstreamProtocol, "the server's TLS handshake: "+err.Error())
	case errors.As(err, &network) && network.Timeout():
		return deny.For(policy.UpstreamUnreachable, "the server did not answer in time")
	}
	return deny.For(policy.UpstreamUnreachable, err.Error())
}

func isX509(err error) bool {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid)
}
