package ui

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestSafe(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"printable text of any script": {"GET /Straße/日本語/ñ?a=b&c — 100% ✓", "GET /Straße/日本語/ñ?a=b&c — 100% ✓"},
		"a clipboard write":            {"\x1b]52;c;aGk=\a", `\x1b]52;c;aGk=\x07`},
		"a C1 sequence":                {"\u009b2J", `\u009b2J`},
		"a C1 byte alone":              {"\x9b2J", `\x9b2J`},
		"line ends and tabs":           {"a\r\nb\tc", `a\r\nb\tc`},
		"bidirectional overrides":      {"moc.elpmaxe\u202e\u2066", `moc.elpmaxe\u202e\u2066`},
		"invisible characters":         {"a\u200bb\u00adc\ufeffd\u2028e", `a\u200bb\u00adc\ufeffd\u2028e`},
		"characters beyond the BMP":    {"\U000e0041 \U0001f600", `\U000e0041 😀`},
		"the replacement character":    {"\ufffd", "\ufffd"},
		"delete and null":              {"\x7f\x00", `\x7f\x00`},
		"other spaces":                 {"a\u00a0b\u3000c", `a\u00a0b\u3000c`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Safe(test.text); got != test.want {
				t.Errorf("Safe(%q) = %q, want %q", test.text, got, test.want)
			}
		})
	}
	if got, want := SafeBlock("a\tb\n\x1bc\r\n"), "a\tb\n\\x1bc\\r\n"; got != want {
		t.Errorf("SafeBlock = %q, want %q", got, want)
	}
}

func FuzzSafe(f *testing.F) {
	f.Add("\x1b[2J\u202e\x9b\r\n\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := Safe(s)
		if !utf8.ValidString(got) {
			t.Fatalf("Safe(%q) = %q is no UTF-8", s, got)
		}
		for _, r := range got {
			if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co) {
				t.Fatalf("Safe(%q) = %q has %U", s, got, r)
			}
		}
		if Safe(got) != got {
			t.Errorf("Safe is not stable on %q", s)
		}
		if strings.IndexFunc(s, func(r rune) bool { return r > '~' || r < ' ' }) < 0 && got != s {
			t.Errorf("Safe(%q) = %q changes plain text", s, got)
		}
	})
}
