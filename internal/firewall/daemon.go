// Package firewall puts the firewall daemon together: its configuration, the
// policy in force and its reloading, the three listeners, the control socket and
// the audit log. It decides nothing about hosts itself: package policy does.
package firewall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/ca"
	"github.com/rootcell-ai/rootcell/internal/ca/rsaleaf"
	"github.com/rootcell-ai/rootcell/internal/dnsproxy"
	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/httpproxy"
	"github.com/rootcell-ai/rootcell/internal/sshproxy"
	"github.com/rootcell-ai/rootcell/internal/upstream"
)

const (
	// shutdownTimeout bounds a clean end. A firewall that goes away has nothing to
	// finish but its log.
	shutdownTimeout = 5 * time.Second
	// denialLeaves is how many leaves for denied names are kept. They have a cache of
	// their own, so that asking for random names cannot evict those in use.
	denialLeaves = 64
)

// Daemon is a firewall that holds its sockets. Make one with New, run it once with Serve.
type Daemon struct {
	config  Config
	version string
	log     *slog.Logger
	started time.Time

	gate      *enforce.Gate
	book      *book
	authority *ca.Authority
	audit     *audit.Log
	resolver  *upstream.Resolver

	dns   *dnsproxy.Server
	https *httpproxy.Server
	ssh   *sshproxy.Server

	sockets sockets
}

// sockets are all that the daemon listens on.
type sockets struct {
	dns     *dnsproxy.Sockets
	https   net.Listener
	connect net.Listener
	control net.Listener
}

func (s *sockets) close() {
	if s.dns != nil {
		s.dns.Close()
	}
	for _, listener := range []net.Listener{s.https, s.connect, s.control} {
		if listener != nil {
			listener.Close()
		}
	}
}

// New loads what config names and opens the sockets. Lists that are missing or
// bad are no error: their kinds are denied, and Status says so. Everything else
// that is missing or bad is one, because a daemon without it could only fail later.
func New(ctx context.Context, config Config, version string, log *slog.Logger) (_ *Daemon, err error) {
	debug.SetMemoryLimit(config.Limits.MemoryBytes)
	d := &Daemon{config: config, version: version, log: log, started: time.Now(), gate: enforce.New()}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.authority, err = loadCA(config.CA, ca.WithRSA(rsaleaf.New)); err != nil {
		return nil, err
	}
	denials, err := loadCA(config.CA, ca.WithRSA(rsaleaf.New), ca.WithCacheSize(denialLeaves))
	if err != nil {
		return nil, err
	}
	roots, err := loadRoots(config.Upstream.Roots)
	if err != nil {
		return nil, err
	}
	if d.audit, err = audit.Open(config.Audit.Path, config.Audit.MaxBytes, log); err != nil {
		return nil, err
	}
	d.resolver, err = upstream.New(upstream.Config{
		Resolvers: config.Upstream.Resolvers, AllowPrivate: config.Policy.AllowPrivate,
		Deny: slices.Concat(config.Upstream.HostAddresses, d.own()), Log: log,
	})
	if err != nil {
		return nil, err
	}
	d.book = newBook(config.Policy.Dir, d.gate, log)
	d.book.reload()

	d.dns = dnsproxy.New(dnsproxy.Config{
		Gate: d.gate, Resolver: d.resolver, Audit: d.audit, Instance: config.Instance, Log: log,
		Limits: dnsproxy.Limits{
			InFlight: config.Limits.DNSQueries, TCPConnections: config.Limits.DNSConnections, TCPIdle: config.Limits.DNSTCPIdle,
			NameChars: config.Limits.DNSNameChars, BudgetChars: config.Limits.DNSBudgetChars, BudgetPerHour: config.Limits.DNSBudgetPerHour,
		},
	})
	style := httpproxy.Explain
	if config.Policy.Reset {
		style = httpproxy.Reset
	}
	d.https = httpproxy.New(httpproxy.Config{
		Gate: d.gate, Dialer: d.resolver, Leaves: d.authority, DenialLeaves: denials, Roots: roots, Audit: d.audit,
		Instance: config.Instance, DenyStyle: style, Limits: httpproxy.Limits{Conns: config.Limits.HTTPSConnections}, Log: log,
	})
	d.ssh = sshproxy.New(sshproxy.Config{
		Gate: d.gate, Dialer: d.resolver, Audit: d.audit, Log: log, Instance: config.Instance, Reset: config.Policy.Reset,
		MaxConns: config.Limits.SSHTunnels, IdleTimeout: config.Limits.SSHIdle,
	})
	return d, d.listen(ctx)
}

// own are addresses that no name may resolve to: those of the firewall and of the agent.
func (d *Daemon) own() []netip.Prefix {
	single := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
	out := []netip.Prefix{single(d.config.Listen.DNS.Addr()), single(d.config.Listen.Agent)}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		// The special ranges cover the usual case of a private uplink.
		d.log.Warn("listing the firewall's own addresses", "err", err)
	}
	for _, addr := range addrs {
		if network, ok := addr.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(network.IP); ok {
				out = append(out, single(a.Unmap()))
			}
		}
	}
	return out
}

func (d *Daemon) listen(ctx context.Context) error {
	var err error
	if d.sockets.dns, err = dnsproxy.Listen(ctx, d.config.Listen.DNS); err != nil {
		return err
	}
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	for _, l := range []struct {
		listener *net.Listener
		what     string
		addr     netip.AddrPort
	}{{&d.sockets.https, "HTTPS", d.config.Listen.HTTPS}, {&d.sockets.connect, "CONNECT", d.config.Listen.Connect}} {
		if *l.listener, err = config.Listen(ctx, "tcp4", l.addr.String()); err != nil {
			return fmt.Errorf("listening for %s on %s: %w", l.what, l.addr, err)
		}
	}
	d.sockets.control, err = listenControl(d.config.Listen.Control)
	return err
}

// Serve serves until ctx ends or a listener breaks, then shuts down. Each value
// from reload makes it read the lists again. It closes everything that New opened.
func (d *Daemon) Serve(ctx context.Context, reload <-chan struct{}) error {
	defer d.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	run := func(what string, serve func() error) {
		wg.Go(func() {
			err := serve()
			if ctx.Err() == nil {
				cancel(fmt.Errorf("serving %s ended: %w", what, errors.Join(errEnded, err)))
			}
		})
	}
	run("DNS", func() error { d.dns.Serve(d.sockets.dns); return nil })
	run("HTTPS", func() error { return d.https.Serve(d.sockets.https) })
	run("CONNECT", func() error { return d.ssh.Serve(d.sockets.connect) })
	control := &controlServer{book: d.book, audit: d.audit, status: d.Status, log: d.log, slots: make(chan struct{}, maxControl)}
	run("control", func() error { control.serve(ctx, d.sockets.control); return nil })

	d.log.Info("serving", "instance", d.config.Instance, "dns", d.config.Listen.DNS, "https", d.config.Listen.HTTPS,
		"connect", d.config.Listen.Connect, "start_ms", time.Since(d.started).Milliseconds())
	if err := notify("READY=1"); err != nil {
		d.log.Warn("telling readiness", "err", err)
	}
	for {
		select {
		case <-reload:
			d.book.reload()
			continue
		case <-ctx.Done():
		}
		break
	}
	cause := context.Cause(ctx)
	if err := notify("STOPPING=1"); err != nil {
		d.log.Warn("telling the end", "err", err)
	}
	d.sockets.close()
	d.shutdown()
	wg.Wait()
	if errors.Is(cause, errEnded) {
		return cause
	}
	return nil
}

// errEnded marks a listener that ended by itself.
var errEnded = errors.New("a listener ended")

func (d *Daemon) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	for what, stop := range map[string]func(context.Context) error{
		"DNS": d.dns.Shutdown, "HTTPS": d.https.Shutdown, "CONNECT": d.ssh.Shutdown,
	} {
		if err := stop(ctx); err != nil {
			d.log.Warn("shutting down", "listener", what, "err", err)
		}
	}
}

// close releases what New took; parts that are missing are passed over.
func (d *Daemon) close() {
	d.sockets.close()
	if d.book != nil {
		d.book.stop()
	}
	if d.resolver != nil {
		d.resolver.Close()
	}
	if d.audit != nil {
		if err := d.audit.Close(); err != nil {
			d.log.Error("closing the audit log", "err", err)
		}
	}
}
