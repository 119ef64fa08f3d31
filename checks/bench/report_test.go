package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func TestVerdicts(t *testing.T) {
	tests := map[string]struct {
		figure Figure
		want   string
		fails  bool
	}{
		"at least, reaches the aim":         {Figure{Value: 3, Bar: 1, Aim: 2, Gate: true}, "aim", false},
		"at least, reaches the bar":         {Figure{Value: 1.5, Bar: 1, Aim: 2, Gate: true}, "bar", false},
		"at least, within the slack":        {Figure{Value: 0.9, Bar: 1, Gate: true}, "missed", false},
		"at least, beyond the slack":        {Figure{Value: 0.8, Bar: 1, Gate: true}, "missed", true},
		"at most, beyond the slack":         {Figure{Value: 1.3, Bar: 1, AtMost: true, Gate: true}, "missed", true},
		"at most, reaches the aim":          {Figure{Value: 0.5, Bar: 1, Aim: 0.5, AtMost: true, Gate: true}, "aim", false},
		"what informs does not fail":        {Figure{Value: 9, Bar: 1, AtMost: true}, "missed", false},
		"what was not measured is skipped":  {Missing(Figure{Bar: 1, Gate: true}, "no tool"), "skipped", false},
		"without a bar there is no verdict": {Figure{Value: 1}, "-", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := test.figure.Verdict(); got != test.want {
				t.Errorf("verdict %q, want %q", got, test.want)
			}
			if got := test.figure.Fails(); got != test.fails {
				t.Errorf("fails %v, want %v", got, test.fails)
			}
		})
	}
}

func TestRatioComparesWithinRounds(t *testing.T) {
	// The second round ran on a machine ten times slower.
	if got := Ratio([]float64{2, 20, 2.2}, []float64{1, 10, 1}); got != 2 {
		t.Errorf("ratio %v", got)
	}
	if !math.IsNaN(Ratio(nil, []float64{1})) || Median([]float64{1, 3}) != 2 {
		t.Error("edges")
	}
}

func TestReport(t *testing.T) {
	report := Report{Sections: []Section{{Title: "S", Figures: []Figure{
		{Name: "a < b", Value: 2, Unit: "x", Bar: 1, Aim: 4}, Missing(Figure{Name: "c", Unit: "ms", Bar: 1}, "no tool"),
	}}}}
	page := report.Markdown()
	for _, line := range []string{"| a < b | 2.00x | >= 1.00x | >= 4.00x | bar |", "| c | – | >= 1.00 ms | – | skipped; no tool |"} {
		if !strings.Contains(page, line) {
			t.Errorf("page without %q:\n%s", line, page)
		}
	}
	for decoder := xml.NewDecoder(strings.NewReader(report.SVG())); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
