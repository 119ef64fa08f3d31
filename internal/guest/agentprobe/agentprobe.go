//go:build linux

// Package agentprobe runs the boundary probes as root inside the agent. They
// try what an agent with root would: other addresses, other routes, raw frames,
// other protocols and ports. Raw frames leave nothing to restore, so a probe
// that is killed half-way leaves the machine as it was.
//
// Each probe passes when the boundary held. Nothing of what answers is trusted.
package agentprobe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/rootcell-ai/rootcell/internal/probe"
)

const (
	allTimeout  = 18 * time.Second        // for all probes together
	silence     = 2000 * time.Millisecond // how long an answer is waited for that should not come
	workTimeout = 12 * time.Second        // for what should work, under emulation
	parallel    = 8
)

// prober is one run.
type prober struct {
	req      probe.Request
	firewall netip.Addr
	link     link
}

// errSkip leaves a probe out. Its text says why.
type errSkip string

func (e errSkip) Error() string { return string(e) }

type check struct {
	name string
	run  func(context.Context) (detail string, err error)
}

// Run runs every probe and calls each with every result, in no fixed order and
// never concurrently.
func Run(ctx context.Context, req probe.Request, each func(probe.Result)) error {
	if req.Schema != probe.Schema {
		return fmt.Errorf("reading the request: schema %d, not %d; rootcell and the guest differ in version", req.Schema, probe.Schema)
	}
	firewall, err := netip.ParseAddr(req.Firewall)
	if err != nil {
		return fmt.Errorf("reading the request: firewall: %w", err)
	}
	l, err := findLink(firewall)
	if err != nil {
		return err
	}
	p := &prober{req: req, firewall: firewall, link: l}
	ctx, cancel := context.WithTimeout(ctx, allTimeout)
	defer cancel()

	var wg sync.WaitGroup
	var mu sync.Mutex // one result at a time
	slots := make(chan struct{}, parallel)
	for _, c := range p.checks() {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			result := run(ctx, c)
			mu.Lock()
			defer mu.Unlock()
			each(result)
		})
	}
	wg.Wait()
	return nil
}

func run(ctx context.Context, c check) probe.Result {
	start := time.Now()
	detail, err := c.run(ctx)
	r := probe.Result{Name: c.name, OK: err == nil, Detail: detail, Seconds: time.Since(start).Seconds()}
	var skip errSkip
	switch {
	case errors.As(err, &skip):
		r.OK, r.Skipped, r.Detail = true, true, err.Error()
	case err != nil:
		r.Detail = err.Error()
	}
	return r
}

// checks are all probes. The slow ones come first.
func (p *prober) checks() []check {
	return []check{
		{"https-allowed", p.httpsAllowed},
		{"ssh-allowed", p.sshAllowed},
		{"dns-allowed", p.dnsAllowed},
		{"link-neighbours", p.neighbours},
		{"firewall-ports", p.firewallPorts},
		{"reroute", p.reroute},
		{"readdress", p.readdress},
		{"raw-frames", p.rawFrames},
		{"dhcp", p.dhcp},
		{"ipv6", p.ipv6},
		{"icmp", p.icmp},
		{"quic", p.quic},
		{"dns-elsewhere", p.dnsElsewhere},
		{"http-cleartext", p.cleartext},
		{"other-ports", p.otherPorts},
		{"host-services", p.hostServices},
		{"metadata", p.metadata},
		{"dns-denied", p.dnsDenied},
		{"https-denied", p.httpsDenied},
		{"https-no-name", p.httpsNoName},
		{"certificate-authority", p.authority},
		{"ssh-denied", p.sshDenied},
		{"one-card", p.oneCard},
		{"root", p.root},
	}
}
