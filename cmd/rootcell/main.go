// Command rootcell gives a coding agent root in a disposable virtual machine,
// with one guarded way out. This file is the table of providers and what a
// process has: arguments, streams, signals.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/rootcell-ai/rootcell/internal/buildinfo"
	"github.com/rootcell-ai/rootcell/internal/cli"
	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/provider/qemu"
)

// providers is every provider that this rootcell has.
var providers = map[string]func(cli.Machine) provider.Provider{
	"qemu": func(m cli.Machine) provider.Provider {
		return qemu.New(qemu.Options{
			Binary: m.Config.QEMU.Binary, Accel: m.Config.QEMU.Accel, Dir: m.StateRoot, CacheDir: m.CacheDir, Log: m.Log,
		})
	},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A second interrupt ends the process at once.
	context.AfterFunc(ctx, stop)
	code := cli.Run(ctx, options())
	stop()
	os.Exit(code)
}

func options() cli.Options {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	executable, err := os.Executable()
	if err != nil {
		executable = os.Args[0]
	}
	if real, err := filepath.EvalSymlinks(executable); err == nil {
		executable = real
	}
	return cli.Options{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Environ: os.Environ(), WorkDir: dir, Executable: executable, Version: buildinfo.Version(),
		Providers: providers,
	}
}
