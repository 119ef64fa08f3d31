//go:build linux

package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// faults runs the load and fault tests of internal/e2e at full size and shows the numbers they give; what must hold in them
// is theirs to assert.
func (b *bench) faults(t *testing.T) Section {
	section := Section{
		Title:   "Load and faults",
		About:   "The tests TestLoad… and TestFault… of internal/e2e at full size: each asserts that other flows go on, memory stays under its limit and nothing opens.",
		Columns: []string{"value", "unit"},
	}
	path := filepath.Join(t.TempDir(), "figures.jsonl")
	cmd := exec.Command("go", "test", "-count=1", "-timeout", "20m", "-run", "^Test(Load|Fault)", "../../internal/e2e")
	cmd.Env = append(os.Environ(), "ROOTCELL_LOAD=full", "ROOTCELL_FIGURES="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the load and fault tests: %v\n%s", err, out)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	for line := range bytes.Lines(text) {
		var figure struct {
			Test, Name, Unit string
			Value            float64
		}
		if err := json.Unmarshal(line, &figure); err != nil {
			t.Errorf("figure %q: %v", line, err)
			continue
		}
		name := strings.TrimPrefix(figure.Test, "Test") + ": " + figure.Name
		section.Rows = append(section.Rows, []string{name, strconv.FormatFloat(figure.Value, 'g', 4, 64), figure.Unit})
	}
	return section
}
