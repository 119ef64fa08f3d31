// Package bench measures the firewall beside its peers and its limits: a direct connection, a bare TLS relay, mitmproxy and
// dnsmasq, each on its own addresses of one laboratory of network namespaces, in interleaved rounds of the same run.
// `make bench` runs it and writes results.md and results.svg. Figures are medians; only ratios within a run mean anything.
package bench

import (
	"math"
	"slices"
)

// Figure is one measured number and what it is held against. Bar and Aim are 0 where there is none.
type Figure struct {
	Name   string
	Value  float64 // NaN when it could not be measured
	Unit   string  // "x" for ratios
	Bar    float64
	Aim    float64
	AtMost bool // smaller is better
	// Gate makes the whole bench fail when the figure is worse than its bar by more than the slack. Processor time of the same
	// work in the same run gates; what depends on the clock of a shared machine informs.
	Gate bool
	Note string // why there is no value, or what was measured
}

// gateSlack is what a gated figure may miss its bar by: between runs on one machine ratios of processor time move by so much.
const gateSlack = 0.2

// Missing is a figure that could not be measured, with the reason.
func Missing(f Figure, why string) Figure {
	f.Value, f.Note = math.NaN(), why
	return f
}

// Verdict says in a word how the figure stands: "aim", "bar", "missed", "skipped", or "-" where there is nothing to reach.
func (f Figure) Verdict() string {
	switch {
	case math.IsNaN(f.Value):
		return "skipped"
	case f.Aim != 0 && f.reaches(f.Aim):
		return "aim"
	case f.Bar != 0 && f.reaches(f.Bar):
		return "bar"
	case f.Bar != 0:
		return "missed"
	}
	return "-"
}

// Fails reports whether the figure fails the bench.
func (f Figure) Fails() bool {
	if !f.Gate || f.Bar == 0 || math.IsNaN(f.Value) {
		return false
	}
	if f.AtMost {
		return f.Value > f.Bar*(1+gateSlack)
	}
	return f.Value < f.Bar/(1+gateSlack)
}

func (f Figure) reaches(limit float64) bool {
	if f.AtMost {
		return f.Value <= limit
	}
	return f.Value >= limit
}

// Section is a group of figures with the raw medians behind them.
type Section struct {
	Title   string
	About   string
	Figures []Figure
	// Columns and Rows are a table of what was measured, a candidate a row; the first cell of a row is its name.
	Columns []string
	Rows    [][]string
}

// Median is the middle value, the mean of the middle two of an even number, and NaN of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Ratio is the median of a[i]/b[i]: rounds are compared with themselves, because the machine changes between them.
func Ratio(a, b []float64) float64 {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if b[i] != 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return Median(ratios)
}
