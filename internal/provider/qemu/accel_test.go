package qemu

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

func TestAccelerationIsJudged(t *testing.T) {
	hw := native()
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	works, hangs := &finding{Probed: true}, &finding{Probed: true, Trouble: "a 64-bit guest hangs"}
	for name, tt := range map[string]struct {
		accel, arch string
		found       *finding
		want, err   string // the accelerator and its reason, or an error
	}{
		"auto uses what works":                      {"auto", "", works, hw + ": a test guest runs", ""},
		"an empty wish is auto":                     {"", "", works, hw + ": a test guest runs", ""},
		"auto emulates what hangs, and says why":    {"auto", "", hangs, "tcg: a 64-bit guest hangs", ""},
		"auto needs a probe":                        {"auto", "", nil, "", "not probed"},
		"auto is not content with the version":      {"auto", "", &finding{Version: "7.2"}, "", "not probed"},
		"emulation needs none":                      {"tcg", "", nil, "tcg: it is configured", ""},
		"emulation is used when asked for":          {"tcg", "", works, "tcg: it is configured", ""},
		"what is asked for is not replaced":         {hw, "", hangs, "", "a 64-bit guest hangs; set qemu.accel"},
		"what is asked for is used when it works":   {hw, "", works, hw + ": a test guest runs", ""},
		"another system's accelerator is an error":  {"xen", "", works, "", "not to be had"},
		"another architecture is emulated":          {"auto", other, nil, "tcg: " + other + " guests", ""},
		"another architecture cannot use the CPU's": {hw, other, works, "", "cannot use"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := judge(provider.Spec{Accel: tt.accel, Arch: tt.arch}, tt.found)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("judge = %v, %v; want an error with %q", v, err, tt.err)
				}
				return
			}
			if got := v.accel + ": " + v.reason; err != nil || !strings.HasPrefix(got, tt.want) {
				t.Errorf("judge = %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestProbeFirmwareIsItsSource(t *testing.T) {
	if diff := cmp.Diff(rebuilt(t, "--64", "firmware/probe_amd64.S"), probeAMD64); diff != "" {
		t.Error("firmware/probe_amd64.bin is not what firmware/probe_amd64.S assembles to")
	}
	standin, err := os.ReadFile("testdata/standin.bin")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rebuilt(t, "--32", "testdata/standin.S"), standin) {
		t.Error("testdata/standin.bin is not what testdata/standin.S assembles to")
	}
}

func TestProbePassesOnACPUThatWorks(t *testing.T) {
	for arch, name := range map[string]string{"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"} {
		t.Run(arch, func(t *testing.T) {
			binary, err := findTool(name)
			if err != nil {
				t.Skipf("no QEMU to test with: %v", err)
			}
			if err := probe(t.Context(), binary, arch, "tcg", 30*time.Second); err != nil {
				t.Errorf("the probe fails under emulation: %v", err)
			}
		})
	}
}

// wrapper is a QEMU that runs script first, where $accel is the accelerator asked
// for. The script may exit, or change the arguments of the real one.
func wrapper(t *testing.T, script string) string {
	t.Helper()
	needTools(t)
	path := filepath.Join(t.TempDir(), "qemu")
	text := "#!/bin/bash\naccel=none\nfor a; do case $a in kvm|hvf) accel=$a;; tcg*) accel=tcg;; esac; done\n" +
		script + "\nexec qemu-system-x86_64 \"$@\"\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProbeTellsWhatIsWrong(t *testing.T) {
	for name, tt := range map[string]struct{ script, want string }{
		"a CPU that hangs":             {"exec sleep 60", "hangs under"},
		"a QEMU that aborts":           {"echo 'qemu: failed to set MSR 0x10a' >&2; kill -ABRT $$", "MSR 0x10a"},
		"a guest that gives up":        {"exit 1", "exit status 1"},
		"a guest that is only reset":   {"exit 0", "does not run"},
		"a firmware that never leaves": {`args=("$@"); head -c 65536 /dev/zero >"${args[-1]}"; set -- "${args[@]/#kvm/tcg}"; set -- "${@/#host/max}"`, "under"},
	} {
		t.Run(name, func(t *testing.T) {
			err := probe(t.Context(), wrapper(t, tt.script), "amd64", "kvm", time.Second)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("probe = %v, want it to say %q", err, tt.want)
			}
		})
	}
}

// needHere skips where guests of the stand-in's architecture are never
// accelerated, or nothing could be.
func needHere(t *testing.T) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the stand-in guest is for amd64")
	}
}

func TestAutoFindsOutOnceAndSaysWhy(t *testing.T) {
	needHere(t)
	p, spec := cell(t, Options{})
	spec.Accel = "auto"
	steps := strings.Join(mustApply(t, p, spec), "\n")
	st := mustStatus(t, p, spec.ID)
	if st.Accel != "tcg" && st.Accel != native() || st.AccelReason == "" {
		t.Errorf("acceleration %q, because %q", st.Accel, st.AccelReason)
	}
	if !strings.Contains(steps, "checking hardware acceleration") || !strings.Contains(steps, st.AccelReason) {
		t.Errorf("the steps do not tell what was found:\n%s", steps)
	}
	if steps := mustApply(t, New(p.opts), spec); len(steps) != 0 {
		t.Errorf("a second Apply did %q", steps)
	}
	if err := p.Stop(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if steps := strings.Join(mustApply(t, New(p.opts), spec), "\n"); strings.Contains(steps, "checking hardware") {
		t.Errorf("what was found was forgotten:\n%s", steps)
	}
}

// trusting makes p believe that acceleration works, by the probe alone.
func trusting(t *testing.T, p *Provider) {
	t.Helper()
	f, err := identify(p.opts.Binary)
	if err != nil {
		t.Fatal(err)
	}
	f.Probed = true
	p.remember(f)
}

func TestAccelerationThatFailsAtTheStartIsGivenUp(t *testing.T) {
	needHere(t)
	p, spec := cell(t, Options{Binary: wrapper(t, "[ $accel = tcg ] || { echo 'qemu: no such luck' >&2; exit 1; }")})
	trusting(t, p)
	spec.Accel = "auto"
	mustApply(t, p, spec)
	st := mustStatus(t, p, spec.ID)
	if st.Accel != "tcg" || !strings.Contains(st.AccelReason, "no such luck") || st.Agent.State != provider.StateRunning {
		t.Errorf("status %+v", st)
	}
	if steps := mustApply(t, New(p.opts), spec); len(steps) != 0 {
		t.Errorf("the next Apply did %q, want what was found to be remembered", steps)
	}
}

func TestSilentGuestsAreStartedWithoutAcceleration(t *testing.T) {
	needHere(t)
	script := `args=(); for a; do case $a in kvm|hvf) a=tcg;; host) a=max;; esac; args+=("$a"); done
[ $accel = tcg ] || set -- "${args[@]}"`
	p, spec := cell(t, Options{Binary: wrapper(t, script)})
	p.guard = 2 * time.Second
	trusting(t, p)
	spec.Accel = "auto"
	spec.Agent.Cmdline = "S"
	steps := strings.Join(mustApply(t, p, spec), "\n")
	st := mustStatus(t, p, spec.ID)
	want := fmt.Sprintf("the agent gave no sign of life under %s", strings.ToUpper(native()))
	if st.Accel != "tcg" || st.AccelReason != want || st.Agent.State != provider.StateRunning {
		t.Errorf("status %+v, want emulation because %q; steps:\n%s", st, want, steps)
	}

	// With guests that speak, it is kept, and not looked at again.
	trusting(t, p)
	spec.Agent.Cmdline = ""
	mustApply(t, p, spec)
	if st := mustStatus(t, p, spec.ID); st.Accel != native() {
		t.Errorf("with guests that speak: %+v", st)
	}
	if f, ok := p.recall(p.opts.Binary); !ok || !f.Proven {
		t.Errorf("what was seen was not remembered: %+v", f)
	}
}

func TestQEMUVersions(t *testing.T) {
	for v, ok := range map[string]bool{"7.2.22": true, "7.2": true, "10.0.0": true, "7.1.0": false, "6.2": false, "?": false} {
		if err := checkVersion(v); (err == nil) != ok {
			t.Errorf("checkVersion(%q) = %v", v, err)
		}
	}
}

func TestTooOldQEMUIsRefusedByName(t *testing.T) {
	p, spec := cell(t, Options{Binary: wrapper(t, `[ "$1" != --version ] || { echo "QEMU emulator version 6.2.0"; exit; }`)})
	spec.Accel = "auto"
	if err := p.Apply(t.Context(), spec, nil); err == nil || !strings.Contains(err.Error(), "6.2.0 is too old") {
		t.Errorf("Apply = %v", err)
	}
	for _, f := range p.Preflight(t.Context()) {
		if f.Name == "qemu" && (f.Level != provider.LevelError || f.Fix == "") {
			t.Errorf("Preflight: %+v", f)
		}
	}
}
