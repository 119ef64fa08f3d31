package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// tally counts results and remembers why tests were skipped.
type tally struct {
	passed, failed, skipped int
	failures                []string
	reasons                 map[string][]string // reason -> tests
}

// check runs one non-Go-test check and counts it.
func (t *tally) check(name string, f func() (output string, err error)) {
	start := time.Now()
	output, err := f()
	if err != nil {
		t.failed++
		t.failures = append(t.failures, name)
		fmt.Printf("FAIL %s: %v\n%s\n", name, err, output)
		return
	}
	t.passed++
	fmt.Printf("ok   %s (%s)\n", name, time.Since(start).Round(100*time.Millisecond))
}

// add counts one result of `go test -json`. Package results print a line; a package that fails without a failing test
// (it did not build, or panicked outside one) counts as a failure itself.
func (t *tally) add(e event, output string) {
	name := strings.TrimPrefix(e.Package, "github.com/rootcell-ai/rootcell/")
	if e.Test == "" {
		switch {
		case e.Action == "fail" && !t.failedIn(name):
			t.failed++
			t.failures = append(t.failures, name)
			fmt.Printf("FAIL %s\n%s\n", name, output)
		case e.Action == "fail":
			fmt.Printf("FAIL %s\n%s\n", name, output)
		case e.Action == "pass":
			fmt.Printf("ok   %s\n", name)
		}
		return
	}
	name += " " + e.Test
	switch e.Action {
	case "pass":
		t.passed++
	case "fail":
		t.failed++
		t.failures = append(t.failures, name)
		fmt.Printf("FAIL %s\n%s\n", name, output)
	case "skip":
		t.skipped++
		if t.reasons == nil {
			t.reasons = map[string][]string{}
		}
		reason := skipReason(output)
		t.reasons[reason] = append(t.reasons[reason], name)
	}
}

func (t *tally) failedIn(pkg string) bool {
	return slices.ContainsFunc(t.failures, func(f string) bool { return strings.HasPrefix(f, pkg+" ") })
}

// skipLine is how the testing package prints t.Skip: `    file_test.go:12: reason`.
var skipLine = regexp.MustCompile(`(?m)^\s*\S+\.go:\d+: (.*)$`)

func skipReason(output string) string {
	if m := skipLine.FindAllStringSubmatch(output, -1); m != nil {
		return m[len(m)-1][1]
	}
	return "no reason given"
}

// summary prints failures, skips by reason and, last, the totals.
func (t *tally) summary(w io.Writer) {
	for _, f := range t.failures {
		fmt.Fprintf(w, "failed: %s\n", f)
	}
	reasons := make([]string, 0, len(t.reasons))
	for r := range t.reasons {
		reasons = append(reasons, r)
	}
	slices.Sort(reasons)
	for _, r := range reasons {
		fmt.Fprintf(w, "skipped %d: %s (%s)\n", len(t.reasons[r]), r, shorten(t.reasons[r]))
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
}

func shorten(tests []string) string {
	if len(tests) > 3 {
		return strings.Join(tests[:3], ", ") + ", …"
	}
	return strings.Join(tests, ", ")
}
