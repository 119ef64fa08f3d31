//go:build linux

package bench

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// holdSome opens connections that make one request each and stay; the function that it returns lets go of them.
func (b *bench) holdSome(t *testing.T, c *candidate, n int) (release func()) {
	var closers []func()
	release = func() {
		for _, f := range closers {
			f()
		}
	}
	for range n {
		conn, err := b.dialTLS(c, c.web(), c.webAddr())
		if err != nil {
			t.Fatal(err)
		}
		closers = append(closers, func() { _ = conn.Close() })
		if err := get(conn, bufio.NewReader(conn), c.web(), "/small"); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
	}
	return release
}

// starts measures from the start of the process, which enters its namespace and drops its privileges first, to the listener.
func (b *bench) starts(t *testing.T) Section {
	var times []float64
	addr := b.candidate(ours).webAddr() + ":443"
	b.daemon.WritePolicy(t, "*.bench.test\n", "*.bench.test\n", "")
	for range 3 * b.rounds {
		b.daemon.Kill()
		began := time.Now()
		b.daemon.Launch(t)
		for {
			conn, err := b.lab.Agent.Dial(context.Background(), "tcp", addr)
			if err == nil {
				_ = conn.Close()
				break
			}
			if time.Since(began) > 10*time.Second {
				t.Fatal("the firewall does not listen")
			}
			<-time.After(time.Millisecond)
		}
		times = append(times, float64(time.Since(began).Microseconds())/1000)
	}
	b.candidate(ours).pid = b.daemon.PID()
	return Section{
		Title: "Start", About: "From starting the process to the listener of HTTPS.",
		Figures: []Figure{{Name: "start to listening", Unit: "ms", Value: Median(times), Bar: 120, Aim: 60, AtMost: true}},
	}
}

var benchmarkLine = regexp.MustCompile(`BenchmarkHTTPS/hit/(\d+)\S*\s+\d+\s+([0-9.]+) ns/op`)

// decisions runs the policy's own benchmark.
func (b *bench) decisions(t *testing.T) Section {
	out, err := exec.Command("go", "test", "-run", "^$", "-bench", "^BenchmarkHTTPS$", "-benchtime", "200ms",
		"github.com/rootcell-ai/rootcell/internal/policy").CombinedOutput()
	if err != nil {
		t.Fatalf("benchmark of the policy: %v: %s", err, out)
	}
	ns := map[string]float64{}
	for _, m := range benchmarkLine.FindAllStringSubmatch(string(out), -1) {
		if ns[m[1]], err = strconv.ParseFloat(m[2], 64); err != nil {
			t.Fatal(err)
		}
	}
	if ns["10"] == 0 || ns["100000"] == 0 {
		t.Fatalf("no figures in %s", out)
	}
	return Section{
		Title: "Decisions", About: "One host among exact rules, `go test -bench` in internal/policy.",
		Figures: []Figure{
			{Name: "host decision among 100,000 rules", Unit: "us", Value: ns["100000"] / 1000, Bar: 2, Aim: 0.3, AtMost: true},
			{Name: "the same against the cost among 10", Unit: "x", Value: ns["100000"] / ns["10"], Aim: 5, AtMost: true},
		},
	}
}

// cellFigures are those of whole machines; they boot them, so they are asked for.
func (b *bench) cellFigures(t *testing.T) Section {
	section := Section{Title: "A cell", About: "Two virtual machines from cached images, asked for with ROOTCELL_BENCH_CELL=1."}
	if !b.cell {
		return Section{}
	}
	program, err := filepath.Abs("../../bin/rootcell")
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	rootcell := func(args ...string) (string, float64) {
		cmd := exec.Command(program, append([]string{"-i", "bench"}, args...)...)
		cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+state, "XDG_CONFIG_HOME="+state, "XDG_DATA_HOME="+state)
		began := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("rootcell %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out), time.Since(began).Seconds()
	}
	defer func() {
		_, _ = rootcell("remove")
	}()
	began := time.Now()
	rootcell("up")
	rootcell("--", "true")
	total := time.Since(began).Seconds()
	var entering, allowing []float64
	for range b.rounds {
		_, enter := rootcell("--", "true")
		entering = append(entering, enter)
		_, allow := rootcell("allow")
		allowing = append(allowing, allow)
	}
	section.Figures = []Figure{
		{Name: "from up to a command's output in the agent", Unit: "s", Value: total, Bar: 90, AtMost: true},
		{Name: "entering a running cell", Unit: "s", Value: Median(entering), Bar: 1.5, AtMost: true},
		{Name: "allow", Unit: "s", Value: Median(allowing), Bar: 1, AtMost: true},
	}
	return section
}
