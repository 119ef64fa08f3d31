package provision

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// guest runs scripts as an agent would, with stand-ins for sudo and systemd
// that write down how they were called.
type guest struct{ home, tools string }

func newGuest(t *testing.T) guest {
	t.Helper()
	g := guest{home: t.TempDir(), tools: t.TempDir()}
	for name, text := range map[string]string{
		"sudo":        "exec \"$@\"",
		"systemctl":   "exit 3",
		"systemd-run": `printf '%s\n' "$*" >>~/units`,
		"dpkg-query":  "exit 1",
	} {
		if err := os.WriteFile(filepath.Join(g.tools, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func (g guest) run(t *testing.T, script string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.Command("sh", "-s")
	cmd.Env = []string{"HOME=" + g.home, "PATH=" + g.tools + ":" + os.Getenv("PATH"), "GIT_CONFIG_SYSTEM=" + filepath.Join(g.home, "gitconfig")}
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = g.home, strings.NewReader(script), &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

func TestValuesAreQuoted(t *testing.T) {
	for name, value := range map[string]string{
		"a quote":            "O'Brien",
		"a command":          "$(touch owned) `touch owned`",
		"the end of a quote": "'; touch owned; '",
		"a here-document":    "ROOTCELL_GIT_IDENTITY",
		"white space":        "  two  words ",
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			_, stderr, status := g.run(t, Script([]Step{gitIdentity(value, "a@example.org")}))
			if status != 0 {
				t.Fatalf("status %d: %s", status, stderr)
			}
			out, _, _ := g.run(t, "git config --system user.name")
			if strings.TrimSuffix(out, "\n") != value {
				t.Errorf("got %q, want %q", out, value)
			}
			if _, err := os.Stat(filepath.Join(g.home, "owned")); err == nil {
				t.Error("the value was run")
			}
		})
	}
}

func TestStepsAreIdempotent(t *testing.T) {
	g := newGuest(t)
	steps := Steps(Desired{GitName: "A", GitEmail: "a@example.org", Harness: []string{"pi", "claude"}, KeyComment: "agent@agent"})
	for range 2 {
		stdout, stderr, status := g.run(t, Script(steps))
		if status != 0 || stderr != "" {
			t.Fatalf("status %d, stderr %q", status, stderr)
		}
		want := "step ssh-key ok\nstep guidance ok\nstep git-identity ok\nstep software ok\n"
		if d := cmp.Diff(want, stdout); d != "" {
			t.Error(d)
		}
	}
	if target, err := os.Readlink(filepath.Join(g.home, ".claude/CLAUDE.md")); err != nil || target != "/etc/rootcell/AGENTS.md" {
		t.Errorf("guidance of claude: %q, %v", target, err)
	}
}

func TestAFailingStepIsNamedAndTheOthersRun(t *testing.T) {
	g := newGuest(t)
	stdout, stderr, status := g.run(t, Script([]Step{
		{Name: "first", Script: "echo broken >&2\nfalse\necho not reached"},
		{Name: "second", Script: "true"},
	}))
	if status != 1 || stdout != "step first failed\nstep second ok\n" || stderr != "broken\n" {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
}

func TestOwnFilesStay(t *testing.T) {
	g := newGuest(t)
	own := filepath.Join(g.home, ".pi/agent/AGENTS.md")
	if err := os.MkdirAll(filepath.Dir(own), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := g.run(t, Script([]Step{guidance([]string{"pi"})})); status != 0 {
		t.Fatal(stderr)
	}
	if text, _ := os.ReadFile(own); string(text) != "mine" {
		t.Errorf("overwritten with %q", text)
	}
}

func TestSoftwareIsInstalledInTheBackground(t *testing.T) {
	g := newGuest(t)
	if _, stderr, status := g.run(t, Script([]Step{software([]string{"pi"}, []string{"ripgrep", "gh"})})); status != 0 {
		t.Fatal(stderr)
	}
	units, err := os.ReadFile(filepath.Join(g.home, "units"))
	if err != nil || !strings.Contains(string(units), "--unit=rootcell-software") || !strings.Contains(string(units), " ripgrep gh") ||
		!strings.Contains(string(units), npmPackage("pi")) {
		t.Errorf("%q, %v", units, err)
	}
}

func TestHarnessFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"settings.json": "{}", "skills/a/SKILL.md": "it's\nROOTCELL_ARCHIVE\n"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	archive, err := Archive(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Archive(dir)
	if err != nil || !bytes.Equal(archive, again) {
		t.Errorf("the same files give other bytes (%v)", err)
	}
	var names []string
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if d := cmp.Diff([]string{"settings.json", "skills/", "skills/a/", "skills/a/SKILL.md"}, names); d != "" {
		t.Error(d)
	}
	g := newGuest(t)
	if _, stderr, status := g.run(t, Script([]Step{harnessFiles(archive)})); status != 0 {
		t.Fatal(stderr)
	}
	if text, err := os.ReadFile(filepath.Join(g.home, ".pi/agent/skills/a/SKILL.md")); err != nil || string(text) != "it's\nROOTCELL_ARCHIVE\n" {
		t.Errorf("%q, %v", text, err)
	}
	if none, err := Archive(filepath.Join(dir, "nothing")); none != nil || err != nil {
		t.Errorf("a directory that is not there: %v, %v", none, err)
	}
}

func TestDigestTellsStepsApart(t *testing.T) {
	a := Digest([]Step{{"a", "bc"}})
	for _, other := range [][]Step{{{"ab", "c"}}, {{"a", "bd"}}, {{"a", "bc"}, {"", ""}}, nil} {
		if Digest(other) == a {
			t.Errorf("%v has the same digest", other)
		}
	}
}
