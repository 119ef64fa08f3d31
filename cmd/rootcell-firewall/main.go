// Command rootcell-firewall is the daemon of the firewall guest: it answers the
// agent's DNS, intercepts its HTTPS and tunnels its SSH, as far as the lists allow.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/rootcell-ai/rootcell/internal/buildinfo"
	"github.com/rootcell-ai/rootcell/internal/firewall"
)

// commands is the whole command line. Exit codes: 0 done, 1 failed, 2 usage or
// invalid configuration.
type commands struct {
	Version kong.VersionFlag `help:"Print the version."`

	Serve   serveCmd   `cmd:"" help:"Serve until told to stop. SIGHUP reads the lists again."`
	Check   checkCmd   `cmd:"" help:"Check the configuration and the lists; print every problem."`
	Ruleset rulesetCmd `cmd:"" help:"Print the nftables ruleset for 'nft -f -'."`
	Ctl     ctlCmd     `cmd:"" help:"Talk to the running daemon; JSON on standard output."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	parser := kong.Must(&commands{}, kong.Name("rootcell-firewall"), kong.Description("The firewall of a rootcell."),
		kong.Vars{"version": buildinfo.Version(), "config": firewall.DefaultPath}, kong.UsageOnError(), kong.Writers(stdout, stderr),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(streams{stdout, stderr}))
	command, err := parser.Parse(args)
	code := 2
	if err == nil {
		code, err = 1, command.Run()
	}
	if e, ok := errors.AsType[exit](err); ok {
		code, err = e.code, e.cause
	} else if err == nil {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "rootcell-firewall: %v\n", err)
	}
	return code
}
