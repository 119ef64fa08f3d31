package sshx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Defaults of Options. Guests that are emulated in software need seconds for
// the handshake's arithmetic.
const (
	DefaultHandshakeTimeout = 30 * time.Second
	DefaultKeepAlive        = 15 * time.Second
	keepAliveMisses         = 4
)

// Options say to whom to connect and as whom.
type Options struct {
	// Dial opens the byte stream to the server. Through does not use it.
	Dial func(ctx context.Context) (net.Conn, error)
	User string
	Key  ssh.Signer
	// HostKey is the only key that the server may have.
	HostKey ssh.PublicKey
	// HandshakeTimeout bounds everything from dialling to being logged in.
	// Zero means DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration
	// KeepAlive is the interval of keep-alive requests. The connection is
	// closed when four intervals bring no answer. Zero means DefaultKeepAlive,
	// a negative value none.
	KeepAlive time.Duration
}

// Client is one SSH connection. It serves any number of commands, copies and
// forwardings at once, and is safe for concurrent use.
type Client struct {
	ssh   *ssh.Client
	close func() error
	done  chan struct{}
	err   error // why it ended; valid after done is closed
}

// ErrHostKey means that the server does not have the pinned key.
var ErrHostKey = errors.New("the host key is not the pinned one")

// Connect dials, checks the host key and logs in. The context bounds only
// that; end the connection with Close.
func Connect(ctx context.Context, options Options) (*Client, error) {
	ctx, cancel := options.bounded(ctx)
	defer cancel()
	conn, err := options.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("dialing SSH server: %w", err)
	}
	return handshake(ctx, conn, options)
}

// Through opens a connection to the SSH server at addr (host:port, as c's
// server sees it) inside c. It ends when c ends; closing it leaves c open.
func (c *Client) Through(ctx context.Context, addr string, options Options) (*Client, error) {
	ctx, cancel := options.bounded(ctx)
	defer cancel()
	conn, err := c.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return handshake(ctx, conn, options)
}

// Dial opens a TCP connection from c's server to addr.
func (c *Client) Dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := c.ssh.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s through SSH: %w", addr, err)
	}
	return conn, nil
}

// Close ends the connection and everything that runs in it. It does not wait
// for the other side; Done is closed when all is over.
func (c *Client) Close() error { return c.close() }

// Done is closed when the connection has ended; Err then says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is nil until the connection has ended.
func (c *Client) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

func (o Options) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	timeout := o.HandshakeTimeout
	if timeout == 0 {
		timeout = DefaultHandshakeTimeout
	}
	return context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no SSH handshake within %v", timeout))
}

func (o Options) config() (*ssh.ClientConfig, error) {
	if o.HostKey == nil || o.Key == nil || o.User == "" {
		return nil, errors.New("connecting by SSH: user, key and host key are required")
	}
	pinned := o.HostKey.Marshal()
	return &ssh.ClientConfig{
		User: o.User,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(o.Key)},
		// Invariant: no key but the pinned one is ever accepted, on the first
		// connection as on every other (TestConnectRefusesAnyOtherHostKey).
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if !bytes.Equal(key.Marshal(), pinned) {
				return fmt.Errorf("%w: expected %s, got %s", ErrHostKey, ssh.FingerprintSHA256(o.HostKey), ssh.FingerprintSHA256(key))
			}
			return nil
		},
		HostKeyAlgorithms: hostKeyAlgorithms(o.HostKey.Type()),
		ClientVersion:     "SSH-2.0-rootcell",
		Config: ssh.Config{
			KeyExchanges: []string{ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519},
			Ciphers:      []string{ssh.CipherAES128GCM, ssh.CipherChaCha20Poly1305, ssh.CipherAES256GCM},
			MACs:         []string{ssh.HMACSHA256ETM, ssh.HMACSHA512ETM},
		},
	}, nil
}

// hostKeyAlgorithms are the signature algorithms for a key type: an RSA key
// signs with SHA-2 only.
func hostKeyAlgorithms(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

func handshake(ctx context.Context, conn net.Conn, options Options) (*Client, error) {
	config, err := options.config()
	if err != nil {
		conn.Close()
		return nil, err
	}
	type result struct {
		conn     ssh.Conn
		channels <-chan ssh.NewChannel
		requests <-chan *ssh.Request
		err      error
	}
	finished := make(chan result, 1)
	go func() {
		sshConn, channels, requests, err := ssh.NewClientConn(conn, "rootcell", config)
		finished <- result{sshConn, channels, requests, err}
	}()
	var r result
	// A channel has no deadlines, and a read from it ends only when the other
	// side has agreed to close it, which a dead one never does.
	select {
	case r = <-finished:
	case <-ctx.Done():
		go conn.Close()
		r.err = context.Cause(ctx)
	}
	if r.err != nil {
		go conn.Close()
		return nil, fmt.Errorf("opening SSH connection as %q: %w", options.User, r.err)
	}
	sshConn, channels, requests := r.conn, r.channels, r.requests
	c := &Client{done: make(chan struct{}), close: sync.OnceValue(sshConn.Close)}
	c.ssh = ssh.NewClient(sshConn, refuseAll(channels), requests)
	go func() {
		c.err = c.ssh.Wait()
		c.close()
		close(c.done)
	}()
	if options.KeepAlive >= 0 {
		interval := options.KeepAlive
		if interval == 0 {
			interval = DefaultKeepAlive
		}
		go c.keepAlive(interval)
	}
	return c, nil
}

// refuseAll turns down every channel that the server opens and returns the
// channels that remain: none.
//
// Invariant: nothing a guest opens (forwarded-tcpip, x11, auth-agent) reaches
// code of the host (TestServerCannotOpenChannels).
func refuseAll(channels <-chan ssh.NewChannel) <-chan ssh.NewChannel {
	none := make(chan ssh.NewChannel)
	go func() {
		defer close(none)
		for channel := range channels {
			// The error means that the connection has gone, which ends the loop.
			_ = channel.Reject(ssh.Prohibited, "rootcell accepts no channels")
		}
	}()
	return none
}

// keepAlive closes a connection whose server has stopped answering.
func (c *Client) keepAlive(interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	answers := make(chan struct{}, 1)
	waiting, misses := false, 0
	for {
		select {
		case <-c.done:
			return
		case <-answers:
			waiting, misses = false, 0
		case <-ticker.C:
			if waiting {
				if misses++; misses >= keepAliveMisses {
					c.close()
					return
				}
				continue
			}
			waiting = true
			go func() {
				// Any answer, a refusal too, shows that the server lives.
				if _, _, err := c.ssh.SendRequest("keepalive@openssh.com", true, nil); err == nil {
					answers <- struct{}{}
				}
			}()
		}
	}
}
