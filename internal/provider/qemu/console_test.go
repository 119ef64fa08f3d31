package qemu

import (
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

func TestPrintableLinesHoldNoControl(t *testing.T) {
	got := printableLines([]byte("\x1b[2J\x1b]0;owned\x07Boot\r\n\n  \t\nlast\xff \u009b31m words\u202e\n" + strings.Repeat("x", 300)))
	want := []string{"[2J]0;ownedBoot", "last 31m words", strings.Repeat("x", 200) + "..."}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("printableLines:\n%s", diff)
	}
}

func FuzzPrintableLines(f *testing.F) {
	f.Add([]byte("\x1b[31mred\x1b[0m\r\nplain\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, line := range printableLines(data) {
			if line == "" || len([]rune(line)) > 203 || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("line %q of %q", line, data)
			}
		}
	})
}
