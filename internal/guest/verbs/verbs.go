//go:build linux

// Package verbs is the fixed set of commands that the host can run in the
// firewall guest, the same through the guest's own SSH server and as OpenSSH's
// ForceCommand.
package verbs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"github.com/kballard/go-shellquote"
	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/control"
	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

// PowerOffSignal asks a PID 1 to switch the machine off: systemd's SIGRTMIN+4,
// which the guest's own init understands too.
const PowerOffSignal = syscall.Signal(38)

// The exit statuses, as the command line's (SPEC 1).
const (
	exitOK      = 0
	exitFailed  = 1
	exitInvalid = 2
)

// maxLine bounds a command line, in bytes. The longest holds one policy rule.
const maxLine = 64 << 10

// Control runs command lines of the fixed set. All fields are required.
type Control struct {
	Firewall  string // path of the rootcell-firewall binary
	Config    string // path of firewall.toml
	PolicyDir string
	Socket    string // the daemon's control socket
	Version   string
	Probe     func(context.Context) (any, error)

	// Check returns the problems of a rule file; the error is for a name that
	// is none of a rule file's.
	Check func(name, text string) ([]control.Problem, error)
}

// Default returns the Control of a firewall guest.
func Default(version string, probe func(context.Context) (any, error)) Control {
	return Control{
		Firewall: "/usr/sbin/rootcell-firewall", Config: guestcfg.FirewallTOMLPath,
		PolicyDir: guestcfg.FirewallPolicyDir, Socket: guestcfg.FirewallControl,
		Version: version, Probe: probe, Check: checkRuleFile,
	}
}

// Run runs line and returns its exit status. What it prints on stdout is JSON;
// stderr gets one line for people when the status is not 0.
//
// Invariant: the first words decide by a fixed table; a line outside it runs
// nothing (TestRunRefuses).
func (c Control) Run(ctx context.Context, line string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(line) > maxLine {
		return refuse(stderr, "the command line is too long")
	}
	words, err := shellquote.Split(line)
	if err != nil {
		return refuse(stderr, err.Error())
	}
	if len(words) == 0 {
		return refuse(stderr, "no command was given")
	}
	switch verb, args := words[0], words[1:]; {
	case verb == "ctl" && len(args) == 1 && args[0] == "status":
		// The host asks this at every entry, and starting a program costs most
		// of a second on an emulated machine.
		status, err := control.Dial(c.Socket).Status(ctx)
		if err != nil {
			return failed(stderr, err)
		}
		return print(stdout, stderr, status)
	case verb == "ctl":
		return c.ctl(ctx, args, stdout, stderr)
	case verb == "policy" && len(args) == 1 && args[0] == "push":
		return c.push(ctx, stdin, stdout, stderr)
	case verb == "probe" && len(args) == 0:
		report, err := c.Probe(ctx)
		if err != nil {
			return failed(stderr, err)
		}
		return print(stdout, stderr, report)
	case verb == "poweroff" && len(args) == 0:
		if err := unix.Kill(1, PowerOffSignal); err != nil {
			return failed(stderr, fmt.Errorf("switching off: %w", err))
		}
		return exitOK
	case verb == "version" && len(args) == 0:
		return print(stdout, stderr, struct {
			Version string `json:"version"`
			Schema  int    `json:"schema"` // of guest.json
		}{c.Version, guestcfg.Schema})
	}
	return refuse(stderr, fmt.Sprintf("%q is not one of ctl, policy push, probe, poweroff, version", words[0]))
}

// ctl hands args to the daemon's own client program.
func (c Control) ctl(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := exec.CommandContext(ctx, c.Firewall, append([]string{"ctl", "--config", c.Config}, args...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() > 0 {
			return exit.ExitCode()
		}
		if ctx.Err() != nil {
			return exitFailed
		}
		return failed(stderr, fmt.Errorf("running rootcell-firewall ctl: %w", err))
	}
	return exitOK
}

func print(stdout, stderr io.Writer, v any) int {
	enc := json.NewEncoder(stdout)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return failed(stderr, fmt.Errorf("writing the answer: %w", err))
	}
	return exitOK
}

func failed(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "rootcell firewall: %v\n", err)
	return exitFailed
}

func refuse(stderr io.Writer, why string) int {
	fmt.Fprintf(stderr, "rootcell firewall: %s\n", why)
	return exitInvalid
}
