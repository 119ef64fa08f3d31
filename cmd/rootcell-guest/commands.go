//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/buildinfo"
	"github.com/rootcell-ai/rootcell/internal/guest/agentprobe"
	"github.com/rootcell-ai/rootcell/internal/guest/agentroot"
	"github.com/rootcell-ai/rootcell/internal/guest/connect"
	"github.com/rootcell-ai/rootcell/internal/guest/firewallinit"
	"github.com/rootcell-ai/rootcell/internal/guest/firewallprobe"
	"github.com/rootcell-ai/rootcell/internal/guest/machine"
	"github.com/rootcell-ai/rootcell/internal/guest/verbs"
	"github.com/rootcell-ai/rootcell/internal/probe"
)

type commands struct {
	Connect     connectCommand     `cmd:"" help:"Connect standard input and output to HOST:PORT through the firewall (SSH ProxyCommand)."`
	Trust       trustCommand       `cmd:"" help:"Make this system trust the CA certificate on standard input."`
	Probe       probeCommand       `cmd:"" help:"Run the boundary probes as root in the agent: a request on standard input, a result a line on standard output, both JSON."`
	PowerButton powerButtonCommand `cmd:"" name:"power-button" help:"Switch the machine off when its power button is pressed."`
	Control     controlCommand     `cmd:"" help:"Run one command of the host's fixed set, taken from SSH_ORIGINAL_COMMAND (for OpenSSH's ForceCommand)."`
	ServeSSH    serveSSHCommand    `cmd:"" name:"serve-ssh" hidden:""`
	Confine     confineCommand     `cmd:"" hidden:""`
	Version     versionCommand     `cmd:"" help:"Print the version."`
}

// status is the exit status of a command that has said everything itself.
type status int

func (s status) Error() string { return "the command ended with an error" }

func exitStatus(err error) int {
	if s := status(0); errors.As(err, &s) {
		return int(s)
	}
	return 1
}

type controlCommand struct{}

func (controlCommand) Run(ctx context.Context) error {
	c := verbs.Default(buildinfo.Version(), firewallProbe)
	if code := c.Run(ctx, os.Getenv("SSH_ORIGINAL_COMMAND"), os.Stdin, os.Stdout, os.Stderr); code != 0 {
		return status(code)
	}
	return nil
}

type serveSSHCommand struct{}

func (serveSSHCommand) Run(log *slog.Logger) error {
	return firewallinit.ServeSSH(verbs.Default(buildinfo.Version(), firewallProbe).Run, log)
}

type confineCommand struct {
	Name string `arg:"" help:"The program: daemon or ssh."`
}

func (c confineCommand) Run() error { return firewallinit.Confine(c.Name) }

type connectCommand struct {
	Proxy string `help:"Address of the firewall's CONNECT proxy, ip:port." required:""`
	Host  string `arg:"" help:"Host to reach."`
	Port  uint16 `arg:"" help:"Port to reach."`
}

func (c connectCommand) Run(ctx context.Context) error {
	return connect.Run(ctx, c.Proxy, c.Host, c.Port, os.Stdin, os.Stdout)
}

type trustCommand struct {
	Root string `help:"Root directory of the system." default:"/" type:"existingdir"`
}

func (c trustCommand) Run() error {
	text, err := io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
	if err != nil {
		return fmt.Errorf("reading the CA certificate: %w", err)
	}
	root, err := os.OpenRoot(c.Root)
	if err != nil {
		return fmt.Errorf("opening the system's root: %w", err)
	}
	defer root.Close()
	return agentroot.Trust(root, text)
}

type probeCommand struct{}

func (probeCommand) Run(ctx context.Context) error {
	var req probe.Request
	dec := json.NewDecoder(io.LimitReader(os.Stdin, 1<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	out := json.NewEncoder(os.Stdout)
	var writeErr error
	err := agentprobe.Run(ctx, req, func(r probe.Result) { writeErr = errors.Join(writeErr, out.Encode(r)) })
	return errors.Join(err, writeErr)
}

// firewallProbe is the verb `probe` of the firewall.
func firewallProbe(ctx context.Context) (any, error) { return firewallprobe.Run(ctx) }

type powerButtonCommand struct{}

func (powerButtonCommand) Run(ctx context.Context, log *slog.Logger) error {
	machine.PowerButton(ctx, log, func() {
		if err := unix.Kill(1, verbs.PowerOffSignal); err != nil {
			log.Error("asking init to switch off", "err", err)
		}
	})
	return nil
}

type versionCommand struct{}

func (versionCommand) Run() error {
	_, err := os.Stdout.WriteString(buildinfo.Version() + "\n")
	return err
}
