package bench

import (
	"fmt"
	"math"
	"strings"
)

// Report is everything a run found.
type Report struct {
	Machine  string // what it ran on, in words
	Date     string
	Sections []Section
}

// Failures returns the gated figures that are worse than their bar and slack.
func (r Report) Failures() []Figure {
	var out []Figure
	for _, s := range r.Sections {
		for _, f := range s.Figures {
			if f.Fails() {
				out = append(out, f)
			}
		}
	}
	return out
}

// Markdown is the report as a page.
func (r Report) Markdown() string {
	var b strings.Builder
	b.WriteString("# What `make bench` measured\n\n")
	fmt.Fprintf(&b, "Written by `make bench` on %s. %s\n\n", r.Date, r.Machine)
	b.WriteString("Agent, firewall and internet are network namespaces; ours is the real binary, unprivileged, behind the real ruleset. Rounds of all\n" +
		"candidates interleave; values are medians, ratios are medians of the ratios within a round. Ratios of processor time gate\n" +
		"(20 % slack, marked *); what depends on the clock informs.\n\n![value against bar](results.svg)\n")
	for _, s := range r.Sections {
		fmt.Fprintf(&b, "\n## %s\n\n", s.Title)
		if s.About != "" {
			fmt.Fprintf(&b, "%s\n\n", s.About)
		}
		if len(s.Figures) > 0 {
			b.WriteString("| figure | value | bar | aim | verdict |\n| --- | --- | --- | --- | --- |\n")
			for _, f := range s.Figures {
				fmt.Fprintf(&b, "| %s%s | %s | %s | %s | %s |\n", f.Name, mark(f.Gate), f.text(f.Value), f.limit(f.Bar), f.limit(f.Aim), f.verdictNote())
			}
		}
		if len(s.Rows) > 0 {
			fmt.Fprintf(&b, "\n| medians | %s |\n|%s\n", strings.Join(s.Columns, " | "), strings.Repeat(" --- |", len(s.Columns)+1))
			for _, row := range s.Rows {
				fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
			}
		}
	}
	return b.String()
}

func mark(gate bool) string {
	if gate {
		return " *"
	}
	return ""
}

func (f Figure) verdictNote() string {
	if f.Note == "" {
		return f.Verdict()
	}
	return f.Verdict() + "; " + f.Note
}

func (f Figure) limit(v float64) string {
	switch {
	case v == 0:
		return "–"
	case f.AtMost:
		return "<= " + f.text(v)
	}
	return ">= " + f.text(v)
}

func (f Figure) text(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	if f.Unit == "x" {
		return Number(v) + "x"
	}
	return Number(v) + " " + f.Unit
}

// Number prints three significant digits, or all before the point.
func Number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
