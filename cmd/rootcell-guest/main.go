//go:build linux

// Command rootcell-guest is what runs inside a cell's guests besides the
// firewall daemon: the init of both initramfs images, the firewall's SSH server
// and its commands, and in the agent the SSH ProxyCommand, the CA installer and
// the boundary probes. It is one static binary.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/rootcell-ai/rootcell/internal/guest/boot"
)

func main() {
	if os.Getpid() == 1 {
		// The kernel passes words of its command line; none is for us.
		boot.Run(context.Background())
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var cli commands
	parser := kong.Must(&cli, kong.Name("rootcell-guest"),
		kong.Description("Runs inside the guests of a rootcell cell."), kong.UsageOnError(),
		kong.BindTo(ctx, (*context.Context)(nil)))
	parsed, err := parser.Parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "rootcell-guest: %v\n", err)
		os.Exit(2)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := parsed.Run(log); err != nil {
		fmt.Fprintf(os.Stderr, "rootcell-guest: %v\n", err)
		os.Exit(exitStatus(err))
	}
}
