package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// staticcheckModule is run from the module cache, so that nothing needs to be installed.
const staticcheckModule = "honnef.co/go/tools/cmd/staticcheck@v0.8.2"

// list names the module's packages.
func list(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "./...").Output()
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", err)
	}
	return strings.Fields(string(out)), nil
}

func raceAvailable() bool {
	for _, cc := range []string{os.Getenv("CC"), "gcc", "clang"} {
		if cc == "" {
			continue
		}
		if _, err := exec.LookPath(cc); err == nil {
			return true
		}
	}
	return false
}

// lint runs formatting, vet and static analysis; each counts as one test.
func lint(ctx context.Context, total *tally) error {
	total.check("gofmt", func() (string, error) {
		out, err := exec.CommandContext(ctx, "gofmt", "-l", "cmd", "internal", "checks").CombinedOutput()
		if err == nil && len(out) > 0 {
			err = errors.New("files are not formatted; run gofmt -w on them")
		}
		return string(out), err
	})
	for _, step := range [][]string{
		{"go", "vet", "./..."},
		{"go", "run", staticcheckModule, "./..."},
		{"go", "mod", "verify"},
	} {
		total.check(strings.Join(step[:min(3, len(step))], " "), func() (string, error) {
			out, err := exec.CommandContext(ctx, step[0], step[1:]...).CombinedOutput()
			return string(out), err
		})
	}
	for _, target := range []string{"darwin/arm64", "linux/arm64"} {
		total.check("build for "+target, func() (string, error) {
			goos, goarch, _ := strings.Cut(target, "/")
			packages := []string{"./cmd/rootcell"}
			if goos == "linux" {
				packages = append(packages, "./cmd/rootcell-firewall", "./cmd/rootcell-guest")
			}
			// Several packages at once: go build checks them and keeps no result.
			cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", os.DevNull}, packages...)...)
			cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
			out, err := cmd.CombinedOutput()
			return string(out), err
		})
	}
	return nil
}

// fuzz gives each fuzz target of the module a short run.
func fuzz(ctx context.Context, total *tally, fuzzTime string) error {
	packages, err := list(ctx)
	if err != nil {
		return err
	}
	for _, pkg := range packages {
		if isReal(pkg) {
			continue
		}
		out, err := exec.CommandContext(ctx, "go", "test", "-run=^$", "-list=^Fuzz", pkg).Output()
		if err != nil {
			return fmt.Errorf("listing fuzz targets of %s: %w", pkg, err)
		}
		for target := range strings.FieldsSeq(string(out)) {
			if !strings.HasPrefix(target, "Fuzz") {
				continue
			}
			total.check(pkg+" "+target, func() (string, error) {
				// Minimising what is merely interesting would take all of a short run where goroutines make coverage vary.
				out, err := exec.CommandContext(ctx, "go", "test", "-run=^$", "-fuzz=^"+target+"$", "-fuzztime="+fuzzTime, "-fuzzminimizetime=5x", pkg).CombinedOutput()
				if err != nil && outOfTime.Match(out) {
					err = nil
				}
				return string(out), err
			})
		}
	}
	return nil
}

// outOfTime is how a fuzz run looks that found nothing and was in the middle of an input when its time was over: a known
// fault of go test (golang.org/issue/75804).
var outOfTime = regexp.MustCompile(`(?m)^--- FAIL: Fuzz\w+ \(.*\)\n +context deadline exceeded\nFAIL$`)

// event is what `go test -json` prints, as far as it is used here (see `go doc test2json`).
type event struct {
	Action, Package, Test, Output string
}

// goTest runs `go test -json` and adds every test and subtest to the tally; output is shown for failures only.
func goTest(ctx context.Context, total *tally, args, env []string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	failuresBefore := total.failed
	read(stdout, total)
	if err := cmd.Wait(); err != nil && total.failed == failuresBefore {
		return fmt.Errorf("running go test: %w\n%s", err, stderr.Bytes())
	}
	return nil
}

func read(r io.Reader, total *tally) {
	output := map[string]*strings.Builder{}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		var e event
		if json.Unmarshal(scanner.Bytes(), &e) != nil {
			fmt.Println(scanner.Text())
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if output[key] == nil {
				output[key] = &strings.Builder{}
			}
			output[key].WriteString(e.Output)
		case "pass", "fail", "skip":
			text := ""
			if output[key] != nil {
				text = output[key].String()
				delete(output, key)
			}
			total.add(e, text)
		}
	}
}
