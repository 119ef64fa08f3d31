package nearest

import "testing"

func TestTo(t *testing.T) {
	words := []string{"memory", "cpus", "disk", "provider", "up"}
	tests := map[string]struct {
		word, want string
		found      bool
	}{
		"a missing letter":              {"memry", "memory", true},
		"swapped neighbours":            {"cpsu", "cpus", true},
		"another case":                  {"Memory", "memory", true},
		"a short word, one letter off":  {"ip", "up", true},
		"something else":                {"kernel", "", false},
		"the empty word":                {"", "", false},
		"a word much longer than known": {"disk-encryption", "", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, found := To(test.word, words)
			if got != test.want || found != test.found {
				t.Errorf("To(%q) = %q, %v, want %q, %v", test.word, got, found, test.want, test.found)
			}
		})
	}
}
