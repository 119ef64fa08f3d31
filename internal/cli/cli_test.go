package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/ui"
)

func model(t *testing.T) *kong.Node {
	t.Helper()
	parser, err := kong.New(new(grammar), kong.Vars{"version": "test"}, kong.ExplicitGroups(groups))
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model.Node
}

func TestNormalise(t *testing.T) {
	m := model(t)
	tests := map[string]struct {
		args string
		want string // "!" for a usage error
	}{
		"nothing enters":                            {"", "enter"},
		"flags alone enter":                         {"-i work", "-i work enter"},
		"a value that looks like a command":         {"-i stop", "-i stop enter"},
		"a value behind an equals sign":             {"--instance=stop list", "--instance=stop list"},
		"a group of short flags that takes a value": {"-vi stop list", "-vi stop list"},
		"a value in the word itself":                {"-istop list", "-istop list"},
		"two dashes run what follows":               {"-- ls -la", "run -- ls -la"},
		"two dashes behind global flags":            {"-v -i work -- ls", "-v -i work run -- ls"},
		"two dashes behind a command are its own":   {"run -t -- ls", "run -t -- ls"},
		"a command stays":                           {"-v list --json", "-v list --json"},
		"help needs no command":                     {"--help", "--help"},
		"an unknown word":                           {"pi --model x", "!"},
		"an unknown word that is a prefix":          {"stat", "!"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := normalise(m, strings.Fields(tt.args))
			if tt.want == "!" {
				if !errors.As(err, new(*usage)) {
					t.Errorf("got %q, %v, want a usage error", got, err)
				}
				return
			}
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestCandidates(t *testing.T) {
	m := model(t)
	instances := func() []string { return []string{"default", "work"} }
	for line, want := range map[string][]string{
		"sel":             {"select"},
		"-i w":            {"work"},
		"--instance d":    {"default"},
		"--instance=w":    {"--instance=work"},
		"-v -i work stat": {"status"},
		"status -i ":      {"default", "work"},
		"select ":         {"default", "work"},
		"select work ":    nil,
		"policy e":        {"explain"},
		"completion ":     {"bash", "zsh", "fish"},
		"edit h":          {"http", "https"},
		"allow --p":       {"--path"},
		"run ls ":         nil,
		"-- ls ":          nil,
		"nonsense ":       nil,
		"__":              nil,
		"doctor --f":      {"--fix"},
	} {
		words := strings.Split(line, " ")
		if d := cmp.Diff(want, candidates(m, words, instances)); d != "" {
			t.Errorf("%q: %s", line, d)
		}
	}
}

// TestCompletionScripts loads each script into its shell, where that is
// installed, and for bash completes with it.
func TestCompletionScripts(t *testing.T) {
	for shell, script := range completionScripts {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skip(shell + " is not installed")
			}
			file := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(path, "-n", file).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if shell != "bash" {
				return
			}
			// A stand-in for rootcell shows which words it is asked about.
			line := `rootcell() { shift 2; printf '%s|' "$@"; }; . "$1"
				COMP_WORDS=(rootcell status --instance = w); COMP_CWORD=4; _rootcell; echo "${COMPREPLY[0]}"
				COMP_WORDS=(rootcell -i ""); COMP_CWORD=2; _rootcell; echo "${COMPREPLY[0]}"`
			out, err := exec.Command(path, "-c", line, "bash", file).CombinedOutput()
			if err != nil || string(out) != "status|--instance|w|\n-i||\n" {
				t.Errorf("%v: %q", err, out)
			}
		})
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                     {},
		"10m":                  now.Add(-10 * time.Minute),
		"2026-11-22T10:00:00Z": time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC),
	} {
		if got, err := parseSince(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"yesterday", "-5m", "10"} {
		if _, err := parseSince(text, now); !errors.As(err, new(*usage)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestEventsCannotDriveTheTerminal(t *testing.T) {
	a := &app{ui: ui.New(ui.Options{Stdout: io.Discard, Stderr: io.Discard})}
	evil := "\x1b]52;c;x\x07\r\n\u202eevil\u009b2J"
	line := a.eventLine(audit.Event{Kind: evil, Verdict: evil, Host: evil, Method: evil, Path: evil, Reason: evil, Rule: evil})
	for _, r := range line {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' {
			t.Fatalf("%U in %q", r, line)
		}
	}
}

func TestGuestBinary(t *testing.T) {
	dir := t.TempDir()
	bin, libexec := filepath.Join(dir, "bin"), filepath.Join(dir, "libexec", "rootcell")
	for _, path := range []string{filepath.Join(bin, "rootcell"), filepath.Join(libexec, "rootcell-guest-linux-arm64")} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	a := &app{Options: Options{Executable: filepath.Join(bin, "rootcell")}}
	if path, err := a.guestBinary("rootcell-guest", "arm64"); err != nil || filepath.Base(path) != "rootcell-guest-linux-arm64" {
		t.Errorf("%q, %v", path, err)
	}
	if path, err := a.guestBinary("rootcell-firewall", "arm64"); err == nil || !strings.Contains(err.Error(), "ROOTCELL_GUEST_BINARIES") {
		t.Errorf("%q, %v", path, err)
	}
	a.Environ = []string{"ROOTCELL_GUEST_BINARIES=" + dir}
	if path, err := a.guestBinary("rootcell-guest", "arm64"); err == nil {
		t.Errorf("found %q outside of the named directory", path)
	}
}

// TestUsageErrorsAreCheap holds that a mistake is told before anything is
// looked for.
func TestUsageErrorsAreCheap(t *testing.T) {
	var out, errOut bytes.Buffer
	code := Run(context.Background(), Options{Args: []string{"list", "--bogus"}, Stdout: &out, Stderr: &errOut})
	if code != 2 || out.Len() > 0 || !strings.HasPrefix(errOut.String(), "rootcell: unknown flag --bogus") {
		t.Errorf("code %d, stdout %q, stderr %q", code, out.String(), errOut.String())
	}
}
