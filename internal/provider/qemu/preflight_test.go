package qemu

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

func findingOf(findings []provider.Finding, name string) provider.Finding {
	i := slices.IndexFunc(findings, func(f provider.Finding) bool { return f.Name == name })
	if i < 0 {
		return provider.Finding{}
	}
	return findings[i]
}

func TestPreflightNamesWhatIsMissingAndHowToGetIt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	findings := New(Options{}).Preflight(t.Context())
	for name, pkg := range map[string]string{binaryName(runtime.GOARCH): packageFor(binaryName(runtime.GOARCH)), "qemu-img": packageFor("qemu-img")} {
		f := findingOf(findings, name)
		if f.Level != provider.LevelError || f.Package != pkg || !strings.Contains(f.Fix, pkg) {
			t.Errorf("%s: %+v, want an error that names the package %s", name, f, pkg)
		}
	}
	_, err := New(Options{}).binary("amd64")
	if err == nil || !strings.Contains(err.Error(), installCommand(packageFor("qemu-system-x86_64"))) {
		t.Errorf("Apply without QEMU = %v, want the command that installs it", err)
	}
}

func TestPreflightOfAHostThatWorks(t *testing.T) {
	needTools(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("the tools checked for are those of amd64")
	}
	cache := t.TempDir()
	p := New(Options{Dir: t.TempDir(), CacheDir: cache})
	findings := p.Preflight(t.Context())
	for _, name := range []string{"qemu", "qemu-img", "mke2fs", "disk space"} {
		if f := findingOf(findings, name); f.Level == "" || f.Level == provider.LevelError || f.Text == "" {
			t.Errorf("%s: %+v", name, f)
		}
	}
	a := findingOf(findings, "acceleration")
	if a.Level == "" || a.Text == "" || a.Level != provider.LevelOK && a.Fix == "" {
		t.Errorf("acceleration: %+v", a)
	}
	if _, err := os.Stat(filepath.Join(cache, "qemu-accel.json")); err != nil {
		t.Errorf("what was found is not remembered: %v", err)
	}
	if got := findingOf(New(Options{CacheDir: cache, Accel: "tcg"}).Preflight(t.Context()), "acceleration"); got.Level != provider.LevelOK {
		t.Errorf("configured emulation: %+v", got)
	}
}

func TestPreflightDiskSpace(t *testing.T) {
	if f := New(Options{Dir: "/dev"}).checkDisk(); f.Text == "" {
		t.Errorf("disk space: %+v", f)
	}
	if f := New(Options{Dir: filepath.Join(t.TempDir(), "later")}).checkDisk(); f.Level != provider.LevelOK || !strings.Contains(f.Text, "not there yet") {
		t.Errorf("disk space of what is not there yet: %+v", f)
	}
}
