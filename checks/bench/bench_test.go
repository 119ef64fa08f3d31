//go:build linux

package bench

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// settings come from the environment, because the bench is a test.
type settings struct {
	rounds  int           // ROOTCELL_BENCH_ROUNDS
	slice   time.Duration // ROOTCELL_BENCH_SECONDS: how long a load runs in a round
	sizeMiB int           // ROOTCELL_BENCH_MIB: transfers
	mitmMiB int           // the same for mitmproxy, which holds bodies in memory
	only    []string      // ROOTCELL_BENCH_ONLY: these parts; results are then printed only
	cell    bool          // ROOTCELL_BENCH_CELL=1: boot machines as well
}

func readSettings(t *testing.T) settings {
	number := func(name string, fallback int) int {
		text := os.Getenv("ROOTCELL_BENCH_" + name)
		if text == "" {
			return fallback
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("ROOTCELL_BENCH_%s=%q is no number above 0", name, text)
		}
		return n
	}
	s := settings{
		rounds: number("ROUNDS", 3), slice: time.Duration(number("SECONDS", 2)) * time.Second,
		sizeMiB: number("MIB", 256), cell: os.Getenv("ROOTCELL_BENCH_CELL") == "1",
	}
	s.mitmMiB = min(s.sizeMiB, 64)
	if only := os.Getenv("ROOTCELL_BENCH_ONLY"); only != "" {
		s.only = strings.Split(only, ",")
	}
	return s
}

// part measures one section of the report. To add figures, add a part.
type part struct {
	name    string
	measure func(*bench, *testing.T) Section
}

func parts() []part {
	return []part{
		{"memory", (*bench).memory}, // first: of a process that has done nothing yet
		{"h1", (*bench).http1},
		{"h2", (*bench).http2},
		{"new", (*bench).newConnections},
		{"latency", (*bench).latency},
		{"bulk", (*bench).transfers},
		{"connect", (*bench).tunnels},
		{"dns", (*bench).dns},
		{"policy", (*bench).decisions},
		{"start", (*bench).starts}, // last: it restarts the firewall
		{"cell", (*bench).cellFigures},
		{"faults", (*bench).faults},
	}
}

// TestFigures measures everything, writes results.md and results.svg beside this file and fails when a gated figure does.
func TestFigures(t *testing.T) {
	if os.Getenv("ROOTCELL_TEST_LEVEL") != "bench" {
		t.Skip("takes minutes and wants the machine for itself; run by make bench, or with ROOTCELL_TEST_LEVEL=bench")
	}
	for _, tool := range []string{"nginx", "wrk", "h2load", "curl"} {
		if !have(tool) {
			t.Skipf("%s is not installed (checks/packages.sh bench)", tool)
		}
	}
	s := readSettings(t)
	b := newBench(t, s)
	report := Report{Machine: machine(), Date: time.Now().UTC().Format("2006-01-02")}
	if c := b.candidate(mitm); c.why != "" {
		report.Machine += " Without mitmproxy: " + c.why + "."
	}
	for _, p := range parts() {
		if len(s.only) > 0 && !slices.Contains(s.only, p.name) {
			continue
		}
		began := time.Now()
		section := p.measure(b, t)
		if len(section.Figures) > 0 || len(section.Rows) > 0 {
			report.Sections = append(report.Sections, section)
		}
		t.Logf("%s took %s", p.name, time.Since(began).Round(time.Second))
	}
	page := report.Markdown()
	t.Log("\n" + page)
	if len(s.only) == 0 && !t.Failed() {
		for name, text := range map[string]string{"results.md": page, "results.svg": report.SVG()} {
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, f := range report.Failures() {
		t.Errorf("%s: %s, the bar is %s", f.Name, f.text(f.Value), f.limit(f.Bar))
	}
}

// machine describes what the bench runs on.
func machine() string {
	model := runtime.GOARCH
	for line := range strings.Lines(readAll("/proc/cpuinfo")) {
		if rest, ok := strings.CutPrefix(line, "model name"); ok {
			model = strings.Trim(rest, " \t:\n")
			break
		}
	}
	load, _, _ := strings.Cut(readAll("/proc/loadavg"), " ")
	return fmt.Sprintf("Machine: %d cores (%s), shared by clients, candidates and servers; load average %s before the run; %s.",
		runtime.NumCPU(), model, load, runtime.Version())
}

// readAll is a file's text, empty where it cannot be read.
func readAll(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}

// versus is a figure that compares two candidates, skipped where the other one is missing.
func (b *bench) versus(f Figure, other string, values map[string][]float64, ratio func(ours, other []float64) float64) Figure {
	if why := b.candidate(other).why; why != "" {
		return Missing(f, why)
	}
	f.Unit = "x"
	f.Value = ratio(values[ours], values[other])
	return f
}

// inverse is how many times smaller the first is.
func inverse(ours, other []float64) float64 { return Ratio(other, ours) }

// table makes rows of the candidates' medians.
func (b *bench) table(columns []map[string][]float64) [][]string {
	var rows [][]string
	for _, c := range b.candidates {
		row := []string{c.name}
		for _, values := range columns {
			row = append(row, Number(Median(values[c.name])))
		}
		rows = append(rows, row)
	}
	return rows
}
