//go:build linux

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/rootcell-ai/rootcell/internal/guest/firewallinit"
	"github.com/rootcell-ai/rootcell/internal/guest/verbs"
)

type commands struct {
	Control  controlCommand  `cmd:"" help:"Run one command of the host's fixed set, taken from SSH_ORIGINAL_COMMAND (for OpenSSH's ForceCommand)."`
	ServeSSH serveSSHCommand `cmd:"" name:"serve-ssh" hidden:""`
	Confine  confineCommand  `cmd:"" hidden:""`
	Version  versionCommand  `cmd:"" help:"Print the version."`
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
	c := verbs.Default(buildVersion(), nil)
	if code := c.Run(ctx, os.Getenv("SSH_ORIGINAL_COMMAND"), os.Stdin, os.Stdout, os.Stderr); code != 0 {
		return status(code)
	}
	return nil
}

type serveSSHCommand struct{}

func (serveSSHCommand) Run(log *slog.Logger) error {
	return firewallinit.ServeSSH(verbs.Default(buildVersion(), nil).Run, log)
}

type confineCommand struct {
	Name string `arg:"" help:"The program: daemon or ssh."`
}

func (c confineCommand) Run() error { return firewallinit.Confine(c.Name) }

type versionCommand struct{}

func (versionCommand) Run() error {
	_, err := os.Stdout.WriteString(buildVersion() + "\n")
	return err
}
