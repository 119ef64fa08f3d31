package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/cell/celltest"
	"github.com/rootcell-ai/rootcell/internal/cli"
	"github.com/rootcell-ai/rootcell/internal/provider"
)

// TestScripts runs the whole command line, from the arguments to the exit code,
// against machines that are played in memory. Each script has a world of its
// own. Scripts have these commands besides the usual ones:
//
//	rootcell [<FILE] ARGS…   runs rootcell, with FILE as standard input
//	code N                   the last rootcell ended with exit code N
//	die agent|firewall      the machine of the default instance dies
//	record VERDICT HOST PATH adds a decision to the firewall's log
//	mode OCTAL PATH          the permissions of a file are exactly these
//	pushes N                 the lists were pushed N times
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			world, err := celltest.New(env.WorkDir)
			if err != nil {
				return err
			}
			env.Values["run"] = &run{world: world}
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("ROOTCELL_STATE_DIR", filepath.Join(env.WorkDir, "instances"))
			env.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(env.WorkDir, "gitconfig"))
			env.Setenv("PATH", os.Getenv("PATH"))
			return os.MkdirAll(filepath.Join(env.WorkDir, "home"), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"rootcell": rootcell, "code": code, "die": kill, "record": record, "mode": mode, "pushes": pushes,
		},
	})
}

// run is the state of one script.
type run struct {
	world *celltest.World
	code  int
}

func rootcell(ts *testscript.TestScript, neg bool, args []string) {
	r := ts.Value("run").(*run)
	var stdin io.Reader = strings.NewReader("")
	if len(args) > 0 && strings.HasPrefix(args[0], "<") {
		stdin, args = strings.NewReader(ts.ReadFile(args[0][1:])), args[1:]
	}
	var environ []string
	for _, name := range []string{"HOME", "PATH", "ROOTCELL_STATE_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME", "GIT_CONFIG_GLOBAL", "EDITOR", "VISUAL", "ROOTCELL_AGENT_CPUS"} {
		if value := ts.Getenv(name); value != "" {
			environ = append(environ, name+"="+value)
		}
	}
	r.code = cli.Run(context.Background(), cli.Options{
		Args: args, Stdin: stdin, Stdout: ts.Stdout(), Stderr: ts.Stderr(),
		Environ: environ, WorkDir: ts.MkAbs("."), Executable: "/usr/bin/rootcell", Version: "v0.0.0-test",
		Providers: map[string]func(cli.Machine) provider.Provider{
			"qemu": func(cli.Machine) provider.Provider { return r.world.Provider },
		},
		Images: celltest.Images{},
	})
	if (r.code != 0) != neg {
		ts.Fatalf("rootcell %s: exit code %d", strings.Join(args, " "), r.code)
	}
}

func code(ts *testscript.TestScript, _ bool, args []string) {
	if want, got := args[0], strconv.Itoa(ts.Value("run").(*run).code); got != want {
		ts.Fatalf("exit code %s, want %s", got, want)
	}
}

func kill(ts *testscript.TestScript, _ bool, args []string) {
	id := provider.CellID{Instance: "default", Dir: filepath.Join(ts.Getenv("ROOTCELL_STATE_DIR"), "default", "v")}
	if !ts.Value("run").(*run).world.Provider.Kill(id, provider.Role(args[0])) {
		ts.Fatalf("the %s does not run", args[0])
	}
}

func record(ts *testscript.TestScript, _ bool, args []string) {
	ts.Value("run").(*run).world.Record(audit.Event{
		Kind: audit.KindHTTPS, Verdict: args[0], Host: args[1], Method: "GET", Path: args[2], Reason: "no-rule",
	})
}

func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

func pushes(ts *testscript.TestScript, _ bool, args []string) {
	if got := strconv.Itoa(ts.Value("run").(*run).world.Pushes("default")); got != args[0] {
		ts.Fatalf("%s pushes, want %s", got, args[0])
	}
}
