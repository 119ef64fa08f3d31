// Command suite runs the project's tests level by level, as `make test` does, and closes with why anything was skipped
// and one line of totals. Levels, from fast to real: lint, unit, fuzz, e2e (network namespaces), vm (real machines).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// realPackages boot machines or namespaces and so are levels of their own.
var realPackages = map[string]string{
	"e2e": "github.com/rootcell-ai/rootcell/internal/e2e",
	"vm":  "github.com/rootcell-ai/rootcell/internal/vmtest",
}

func main() {
	levels := flag.String("levels", "lint,unit,fuzz,e2e,vm", "levels to run, in order")
	fuzzTime := flag.String("fuzztime", "3s", "how long each fuzz target runs")
	race := flag.Bool("race", true, "build the unit level with the race detector")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	total := &tally{}
	for level := range strings.SplitSeq(*levels, ",") {
		start := time.Now()
		fmt.Printf("== %s\n", level)
		if err := runLevel(ctx, level, *fuzzTime, *race, total); err != nil {
			fmt.Printf("suite: %v\n", err)
			total.failed++
		}
		fmt.Printf("== %s took %s\n", level, time.Since(start).Round(time.Second))
	}
	total.summary(os.Stdout)
	if total.failed > 0 {
		os.Exit(1)
	}
}

func runLevel(ctx context.Context, level, fuzzTime string, race bool, total *tally) error {
	switch level {
	case "lint":
		return lint(ctx, total)
	case "unit":
		packages, err := list(ctx)
		if err != nil {
			return err
		}
		packages = slices.DeleteFunc(packages, isReal)
		args := []string{"-timeout", "15m"}
		if race && raceAvailable() {
			args = append(args, "-race")
		} else if race {
			fmt.Println("suite: no C compiler, so the unit level runs without the race detector")
		}
		return goTest(ctx, total, append(args, packages...), nil)
	case "fuzz":
		return fuzz(ctx, total, fuzzTime)
	case "e2e", "vm":
		// -count=1: what these levels test is the machine around them, which the test cache does not see.
		return goTest(ctx, total, []string{"-count=1", "-timeout", "40m", realPackages[level]}, []string{"ROOTCELL_TEST_LEVEL=" + level})
	}
	return errors.New("unknown level " + level + "; levels are lint, unit, fuzz, e2e, vm")
}

func isReal(pkg string) bool {
	for _, p := range realPackages {
		if p == pkg {
			return true
		}
	}
	return false
}
