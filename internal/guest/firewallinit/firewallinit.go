//go:build linux

// Package firewallinit is PID 1 of the firewall guest: a kernel, an initramfs
// and this. The order of its steps is its purpose. Nothing can pass before the
// ruleset is loaded and checked, because no interface is up until then; and
// when a step that the boundary rests on does not succeed, the machine says so
// on its console and switches off.
package firewallinit

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/guest/logdisk"
	"github.com/rootcell-ai/rootcell/internal/guest/machine"
	"github.com/rootcell-ai/rootcell/internal/guest/netup"
	"github.com/rootcell-ai/rootcell/internal/guest/supervise"
	"github.com/rootcell-ai/rootcell/internal/guest/verbs"
	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

const (
	firewallBinary = "/usr/sbin/rootcell-firewall"
	nftBinary      = "/usr/sbin/nft"
	guestBinary    = "/init"
	logDir         = "/var/log/rootcell"
	cardTimeout    = 10 * time.Second
)

// Run brings the firewall up and keeps it until the machine is to be switched
// off. The kernel's filesystems are mounted and the modules loaded already. The
// error, if any, is the essential step that did not succeed; either way the
// caller switches the machine off.
func Run(ctx context.Context, cfg guestcfg.Config, log *slog.Logger) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// Never let a terminal or a broken pipe end PID 1.
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGINT)
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	off := make(chan os.Signal, 1)
	signal.Notify(off, syscall.SIGTERM, verbs.PowerOffSignal)

	programs := supervise.New(log)
	go programs.Reap(ctx, ended)

	mounted := make(chan error, 1)
	go func() { mounted <- mountLog(ctx, programs) }()

	if err := secure(ctx, programs, cfg); err != nil {
		return err
	}
	log.Info("ruleset loaded and checked")
	state := State{LogDisk: "ext4"}
	if err := <-mounted; err != nil {
		log.Warn("audit log is kept in memory only", "err", err)
		state.LogDisk = "memory: " + err.Error()
	}
	if err := os.Chown(logDir, guestcfg.FirewallDaemonUID, guestcfg.FirewallDaemonUID); err != nil {
		return fmt.Errorf("giving %q to the daemon: %w", logDir, err)
	}
	if err := state.save(); err != nil {
		return err
	}
	if err := netup.Up(cfg.Network); err != nil {
		return err
	}
	log.Info("interfaces up")

	console := machine.Console()
	keep := func(name string) {
		programs.Keep(ctx, supervise.Program{
			Name: name, Argv: []string{guestBinary, "confine", name}, Env: os.Environ(), Output: console,
		})
	}
	keep("daemon")
	keep("ssh")
	go machine.PowerButton(ctx, log, func() { off <- syscall.SIGTERM })

	why := <-off
	log.Info("switching off", "signal", why.String())
	stop()
	programs.Wait()
	// An error leaves the file system to the journal.
	_ = unix.Unmount(logDir, 0)
	return nil
}

// secure does everything that has to hold before an interface may come up.
func secure(ctx context.Context, programs *supervise.Set, cfg guestcfg.Config) error {
	if err := netup.Apply("/proc/sys", netup.FirewallSettings()); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	if err := writeFiles("/", cfg); err != nil {
		return err
	}
	if err := netup.Prepare(cfg.Network, cardTimeout); err != nil {
		return err
	}
	// Settings of "default" reach interfaces made later; these exist already.
	if err := netup.Apply("/proc/sys", netup.InterfaceSettings(guestcfg.InterfaceCell, guestcfg.InterfaceUplink)); err != nil {
		return err
	}
	return loadRuleset(ctx, programs.Run)
}

func mountLog(ctx context.Context, programs *supervise.Set) error {
	if err := os.MkdirAll(filepath.Dir(logDir), 0o755); err != nil {
		return fmt.Errorf("making %q: %w", filepath.Dir(logDir), err)
	}
	if err := os.MkdirAll(logDir, 0o700); err != nil {
		return fmt.Errorf("making %q: %w", logDir, err)
	}
	return logdisk.Mount(ctx, func(cmd *exec.Cmd) error { return programs.Run(cmd) }, logDir)
}
