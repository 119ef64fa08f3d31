// Package qemu runs cells as two QEMU processes of the calling user, without
// any privilege, daemon or host network configuration.
//
// Each machine is one qemu-system process in a session of its own, which
// outlives the rootcell that started it. Everything a cell needs lies in the
// directory qemu/ of its CellID.Dir, mode 0700, and QEMU runs with that directory
// as its working directory, so that every path it is given is short and
// relative.
//
// The private link is a pair of Unix datagram sockets in that directory: each
// process binds its own and sends to the other's, so that either may be killed
// and started again on its own, and nothing else is on the segment. The agent
// has that one network interface. The firewall has another one on QEMU's
// user-mode network, where one TCP port of 127.0.0.1 leads to its SSH server.
//
// Which process is a cell's machine is decided by the lock that QEMU holds on
// its pid file for as long as it lives: the kernel names the holder, so a pid
// file left behind by a crash, or a number that another process has by now, is
// never taken for a machine.
package qemu

import (
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"time"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

var (
	_ provider.Provider      = (*Provider)(nil)
	_ provider.Preflighter   = (*Provider)(nil)
	_ provider.ConsoleReader = (*Provider)(nil)
	_ provider.Resetter      = (*Provider)(nil)
)

// Options configure a Provider. The zero value is usable.
type Options struct {
	// Binary is the qemu-system program. Empty finds the one for the guests'
	// architecture on PATH.
	Binary string

	// Accel is what Preflight checks acceleration for; Apply goes by its Spec.
	Accel string

	// Dir is where instances live, for Preflight to check the disk space of.
	// Empty means the working directory.
	Dir string

	// CacheDir is where the verdicts about hardware acceleration are kept until
	// the host or QEMU changes. Empty means that each process asks again.
	CacheDir string

	// Grace is how long a machine may take to shut down before it is ended.
	// Zero means 30 seconds for the agent and 5 for the firewall, which has
	// nothing to save.
	Grace time.Duration

	// Log is told of details that progress leaves out. Nil discards.
	Log *slog.Logger
}

// Provider implements provider.Provider with QEMU. Make one with New.
type Provider struct {
	opts  Options
	log   *slog.Logger
	guard time.Duration // how long guests may be silent under a new accelerator
}

// New returns a Provider. It touches nothing yet.
func New(opts Options) *Provider {
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Provider{opts: opts, log: log, guard: guardLimit}
}

func (p *Provider) grace(role provider.Role) time.Duration {
	switch {
	case p.opts.Grace > 0:
		return p.opts.Grace
	case role == provider.RoleFirewall:
		return 5 * time.Second
	}
	return 30 * time.Second
}

// roles lists both machines in the order in which they are named to people.
var roles = [...]provider.Role{provider.RoleFirewall, provider.RoleAgent}

// guestArch is the architecture of a Spec as Go spells it.
func guestArch(arch string) string {
	if arch == "" {
		return runtime.GOARCH
	}
	return arch
}

// binaryName is the qemu-system program that runs guests of an architecture.
func binaryName(arch string) string {
	if arch == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// binary finds the qemu-system program for guests of an architecture.
func (p *Provider) binary(arch string) (string, error) {
	name := p.opts.Binary
	if name == "" {
		name = binaryName(arch)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("looking for %q: it is not installed; install it with `%s`", name, installCommand(packageFor(binaryName(arch))))
	}
	return path, nil
}
