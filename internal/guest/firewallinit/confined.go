//go:build linux

package firewallinit

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/guest/confine"
	"github.com/rootcell-ai/rootcell/internal/guest/machine"
	"github.com/rootcell-ai/rootcell/internal/guest/sshserver"
	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

const mebibyte = 1 << 20

// Confine replaces this process by one of the firewall's two programs, under
// that program's profile.
func Confine(name string) error {
	switch name {
	case "daemon":
		return confine.Exec(confine.Profile{
			UID: guestcfg.FirewallDaemonUID, GID: guestcfg.FirewallDaemonUID,
			Capabilities: []uintptr{unix.CAP_NET_BIND_SERVICE},
			Limits: map[int]uint64{
				unix.RLIMIT_NOFILE: 16384, unix.RLIMIT_NPROC: 512, unix.RLIMIT_CORE: 0, unix.RLIMIT_MEMLOCK: 0,
			},
			// When memory runs out the daemon goes first: it comes back within
			// a second, and without it everything is denied.
			OOMScore: 500, Umask: 0o027,
		}, []string{firewallBinary, "serve", "--config", guestcfg.FirewallTOMLPath}, environment())
	case "ssh":
		return confine.Exec(confine.Profile{
			// User 0 only to read what init wrote, to replace rule files and to
			// signal PID 1; the group reaches the daemon's socket.
			UID: 0, GID: 0, Groups: []int{guestcfg.FirewallDaemonUID},
			Capabilities: []uintptr{unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_ADMIN},
			Limits:       map[int]uint64{unix.RLIMIT_NOFILE: 2048, unix.RLIMIT_CORE: 0, unix.RLIMIT_DATA: 1024 * mebibyte},
			OOMScore:     -500, Umask: 0o022,
		}, []string{guestBinary, "serve-ssh"}, environment())
	}
	return fmt.Errorf("confining %q: not one of daemon, ssh", name)
}

func environment() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"}
}

// ServeSSH serves the host's connections until SIGTERM. It listens on the
// uplink's address and on the uplink alone, on top of what the ruleset says.
//
// Invariant: nothing of it can be reached from the agent's side (ATTACKS F7 and
// G1; the probe "firewall-ports" of `rootcell verify` tries).
func ServeSSH(run sshserver.Runner, log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := machine.ReadConfig()
	if err != nil {
		return err
	}
	if cfg.Role != guestcfg.RoleFirewall {
		return fmt.Errorf("serving SSH: this guest is the %s", cfg.Role)
	}
	hostKey, err := ssh.ParsePrivateKey([]byte(cfg.SSH.HostKey.Reveal()))
	if err != nil {
		return fmt.Errorf("parsing the SSH host key: %w", err)
	}
	var authorized []ssh.PublicKey
	for _, line := range cfg.SSH.AuthorizedKeys {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return fmt.Errorf("parsing an authorized key: %w", err)
		}
		authorized = append(authorized, key)
	}
	server, err := sshserver.New(sshserver.Options{
		HostKey: hostKey, Authorized: authorized,
		Agent: net.JoinHostPort(cfg.Network.PeerAddress, "22"),
		Dial:  (&net.Dialer{}).DialContext,
		Run:   run, Log: log,
	})
	if err != nil {
		return err
	}
	address, err := netip.ParsePrefix(cfg.Network.Uplink.Address)
	if err != nil {
		return fmt.Errorf("parsing the uplink's address: %w", err)
	}
	bound := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var bindErr error
		err := raw.Control(func(fd uintptr) {
			bindErr = unix.BindToDevice(int(fd), guestcfg.InterfaceUplink)
		})
		if err != nil {
			return err
		}
		return bindErr
	}}
	listener, err := bound.Listen(ctx, "tcp4", netip.AddrPortFrom(address.Addr(), 22).String())
	if err != nil {
		return fmt.Errorf("listening for SSH: %w", err)
	}
	log.Info("SSH server ready", "address", listener.Addr().String(), "pid", os.Getpid())
	return server.Serve(ctx, listener)
}
