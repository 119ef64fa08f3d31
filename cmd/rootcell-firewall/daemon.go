package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/rootcell-ai/rootcell/internal/buildinfo"
	"github.com/rootcell-ai/rootcell/internal/firewall"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

type streams struct{ stdout, stderr io.Writer }

// exit is an error with its own exit code. A cause that is nil prints nothing:
// everything was said already.
type exit struct {
	code  int
	cause error
}

func (e exit) Error() string { return fmt.Sprint(e.cause) }

// configFlag is the flag that every command has.
type configFlag struct {
	Config string `help:"Configuration file." default:"${config}" placeholder:"FILE"`
}

// load prints every problem and exits with 2 when there are some.
func (c configFlag) load(out io.Writer) (firewall.Config, error) {
	config, problems := firewall.Load(c.Config)
	return config, report(out, problems)
}

func report(out io.Writer, problems policyfile.Problems) error {
	for _, p := range problems {
		fmt.Fprintln(out, p)
	}
	if problems.Err() != nil {
		return exit{code: 2}
	}
	return nil
}

type serveCmd struct {
	configFlag
	Verbose bool `short:"v" help:"Log details."`
}

func (c serveCmd) Run(ctx context.Context, io streams) error {
	config, err := c.load(io.stderr)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if c.Verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(io.stderr, &slog.HandlerOptions{Level: level}))
	daemon, err := firewall.New(ctx, config, buildinfo.Version(), log)
	if err != nil {
		return err
	}
	return daemon.Serve(ctx, hangups(ctx))
}

// hangups delivers SIGHUP as a request to reload.
func hangups(ctx context.Context) <-chan struct{} {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	out := make(chan struct{})
	go func() {
		defer signal.Stop(signals)
		for {
			select {
			case <-ctx.Done():
				return
			case <-signals:
			}
			select {
			case <-ctx.Done():
				return
			case out <- struct{}{}:
			}
		}
	}()
	return out
}

type checkCmd struct{ configFlag }

func (c checkCmd) Run(io streams) error { return report(io.stdout, firewall.Check(c.Config)) }

type rulesetCmd struct{ configFlag }

func (c rulesetCmd) Run(io streams) error {
	config, err := c.load(io.stderr)
	if err != nil {
		return err
	}
	text, err := config.NftRuleset()
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(io.stdout, text)
	return err
}
