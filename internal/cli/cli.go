// Package cli is the command line of rootcell: the grammar, one file per verb,
// and how answers are printed. What the verbs do is package cell's.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"

	"github.com/alecthomas/kong"

	"github.com/rootcell-ai/rootcell/internal/cell"
	"github.com/rootcell-ai/rootcell/internal/config"
	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/ui"
)

// Options are what a run of rootcell gets from its process.
type Options struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Environ        []string // as of os.Environ
	WorkDir        string   // absolute
	Executable     string   // absolute path of this program
	Version        string

	// Providers makes the providers that this rootcell has, by the names of
	// the configuration.
	Providers map[string]func(Machine) provider.Provider
	// Images replaces the builder of guest images; nil uses package image.
	Images cell.Images
}

// Machine is what a provider may want to know of the instance and the host.
type Machine struct {
	Config    config.Config
	StateRoot string // where instances live; need not exist
	CacheDir  string // for what can be found out again; need not exist, "" where there is none
	Log       *slog.Logger
}

// app is one run: what commands' Run methods get.
type app struct {
	Options
	ctx    context.Context
	ui     *ui.UI
	model  *kong.Node
	flags  globals
	logger *slog.Logger
	task   *ui.Task // progress of the running command; nil when nothing is shown
}

// exited is how kong's help and version flags end parsing.
type exited int

// Run runs one command line and returns the exit code.
func Run(ctx context.Context, o Options) (code int) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exited)
			if !ok {
				panic(r)
			}
			code = int(e)
		}
	}()
	var g grammar
	parser, err := kong.New(&g,
		kong.Name("rootcell"), kong.Description(description),
		kong.Writers(o.Stdout, o.Stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.Vars{"version": "rootcell " + o.Version},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.ExplicitGroups(groups),
	)
	if err != nil {
		return report(ui.New(ui.Options{Stdout: o.Stdout, Stderr: o.Stderr}), err)
	}
	a := &app{Options: o, ctx: ctx, model: parser.Model.Node}
	parsed, err := a.parse(parser)
	a.flags = g.globals
	a.ui = ui.New(ui.Options{
		Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Getenv: a.getenv,
		JSON: g.JSON, NoColor: g.NoColor,
	})
	a.logger = newLogger(a.ui.Stderr(), g.Verbose)
	if err != nil {
		return report(a.ui, err)
	}
	if g.InitEnv != "" && parsed.Command() != "enter" {
		return report(a.ui, &usage{"--init-env stands alone; it goes with no command"})
	}
	err = parsed.Run(a)
	a.endTask(err)
	if err != nil && ctx.Err() != nil && !errors.As(err, new(exitStatus)) {
		err = &cell.Error{Code: cell.ExitInterrupted, Err: errors.New("interrupted; the next command continues from here")}
	}
	return report(a.ui, err)
}

func (a *app) parse(parser *kong.Kong) (*kong.Context, error) {
	args, err := normalise(a.model, a.Args)
	if err == nil {
		var parsed *kong.Context
		if parsed, err = parser.Parse(args); err == nil {
			return parsed, nil
		}
		err = &usage{err.Error()}
	}
	// A command line that cannot be read still says how errors are to be
	// printed.
	for _, arg := range a.Args {
		if arg == "--json" {
			parser.Model.Target.FieldByName("JSON").SetBool(true)
		}
	}
	return nil, err
}

// report prints err and returns the exit code for it.
func report(out *ui.UI, err error) int {
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	code := cell.ExitCode(err)
	if errors.As(err, new(*usage)) {
		code = cell.ExitUsage
		err = ui.WithHint(err, "rootcell --help")
	}
	out.Error(err, code)
	return code
}

// exitStatus ends rootcell with a status whose reason has been told already,
// such as that of a command in the agent.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func newLogger(w io.Writer, verbose bool) *slog.Logger {
	if !verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (a *app) getenv(key string) string {
	value := ""
	for _, kv := range a.Environ {
		if len(kv) > len(key) && kv[len(key)] == '=' && kv[:len(key)] == key {
			value = kv[len(key)+1:]
		}
	}
	return value
}

// cacheDir is rootcell's directory in the user's cache.
func (a *app) cacheDir() string {
	if dir := a.getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "rootcell")
	}
	if home := a.getenv("HOME"); home != "" {
		return filepath.Join(home, ".cache", "rootcell")
	}
	return ""
}

// host is the machine as the use cases see it.
func (a *app) host() (*cell.Host, error) {
	root, err := cell.FindRoot(a.getenv, a.WorkDir)
	if err != nil {
		return nil, err
	}
	providers := map[string]func(config.Config) provider.Provider{}
	for name, make := range a.Providers {
		providers[name] = func(cfg config.Config) provider.Provider {
			return make(Machine{Config: cfg, StateRoot: root.Dir, CacheDir: a.cacheDir(), Log: a.logger})
		}
	}
	images := a.Images
	if images == nil {
		images = &imageBuilder{a}
	}
	return &cell.Host{
		Root: root, Providers: providers, Images: images,
		Environ: a.Environ, GOOS: runtime.GOOS, GOARCH: runtime.GOARCH,
		Version: a.Version, Command: "rootcell " + shellLine(a.Args), NoWait: a.flags.NoWait,
		Report: a.report,
		Tell:   func(text string) { a.ui.Infof("%s", text) },
		Warn:   func(text string) { a.ui.Warnf("%s", text) },
		Ask: func(question string) bool {
			yes, err := a.ui.Question(question)
			return err == nil && yes
		},
		Logger: a.logger,
	}, nil
}

// cell is the instance that the command is about: that of --instance, else the
// selected one.
func (a *app) cell() (*cell.Cell, error) {
	h, err := a.host()
	if err != nil {
		return nil, err
	}
	name := a.flags.Instance
	if name == "" {
		if name, err = h.Root.Selected(); err != nil {
			return nil, err
		}
	}
	return h.Cell(name)
}

// report shows what a command is doing, step by step with the time each took.
// Nothing is shown before the first report, so that quick commands stay quiet.
func (a *app) report(text string) {
	a.endTask(nil)
	a.task = a.ui.Task("%s", text)
}

func (a *app) endTask(err error) {
	if a.task == nil {
		return
	}
	if err != nil {
		a.task.Fail()
	} else {
		a.task.Done()
	}
	a.task = nil
}

// answer prints v as JSON when that is asked for, else calls human.
func (a *app) answer(v any, human func()) error {
	a.endTask(nil)
	if a.ui.JSON() {
		return a.ui.Answer(v)
	}
	human()
	return nil
}
