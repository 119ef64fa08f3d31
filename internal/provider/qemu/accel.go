package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"time"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// guardLimit is how long the guests may stay silent on their consoles when an
// accelerator is used for the first time. A kernel's first line comes within a
// second where acceleration works.
const guardLimit = 15 * time.Second

// verdict is how a cell's CPUs are to be run.
type verdict struct {
	accel  string
	reason string
	proven bool // a guest was seen to run under it
}

// finding is what is known of one QEMU program on this boot of the host. It is
// kept in a file, because asking costs up to five seconds.
type finding struct {
	HostBoot string    `json:"hostBoot"`
	Binary   string    `json:"binary"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	Version  string    `json:"version"`
	Probed   bool      `json:"probed"`            // whether acceleration was tried; the rest says nothing otherwise
	Trouble  string    `json:"trouble,omitempty"` // why acceleration is not used; empty when it works
	Proven   bool      `json:"proven,omitempty"`
}

// native is the accelerator of this host's system.
func native() string {
	if runtime.GOOS == "darwin" {
		return "hvf"
	}
	return "kvm"
}

// judge turns what is known into a verdict for spec. found may be nil when
// nothing has to be known for it.
func judge(spec provider.Spec, found *finding) (verdict, error) {
	arch := guestArch(spec.Arch)
	hw := native()
	switch {
	case spec.Accel == "tcg":
		return verdict{accel: "tcg", reason: "it is configured"}, nil
	case spec.Accel != "" && spec.Accel != "auto" && spec.Accel != hw:
		return verdict{}, fmt.Errorf("choosing the acceleration: %q is not to be had on this system; set qemu.accel to \"auto\" or %q", spec.Accel, hw)
	case arch != runtime.GOARCH && spec.Accel == hw:
		return verdict{}, fmt.Errorf("choosing the acceleration: %s guests on %s cannot use %s; set qemu.accel to \"auto\"", arch, runtime.GOARCH, hw)
	case arch != runtime.GOARCH:
		return verdict{accel: "tcg", reason: fmt.Sprintf("%s guests on %s are always emulated", arch, runtime.GOARCH)}, nil
	case found == nil || !found.Probed:
		return verdict{}, errNotProbed
	case found.Trouble == "":
		return verdict{accel: hw, reason: "a test guest runs under it", proven: found.Proven}, nil
	case spec.Accel == hw:
		return verdict{}, fmt.Errorf("choosing the acceleration: %s; set qemu.accel to \"auto\" to use software emulation instead", found.Trouble)
	}
	return verdict{accel: "tcg", reason: found.Trouble}, nil
}

var errNotProbed = errors.New("acceleration was not probed yet")

// chooseAccel finds out how to run spec's CPUs, from memory where it can.
func (p *Provider) chooseAccel(ctx context.Context, spec provider.Spec, binary string, s *session) (verdict, error) {
	found, known := p.recall(binary)
	if known {
		if v, err := judge(spec, &found); !errors.Is(err, errNotProbed) {
			return v, err
		}
	}
	v, err := judge(spec, nil)
	if err != nil && !errors.Is(err, errNotProbed) {
		return v, err
	}
	if err != nil {
		s.step("", "checking hardware acceleration (%s)", native())
	}
	if found, err = p.find(ctx, binary, err != nil); err != nil {
		return verdict{}, err
	}
	if v, err = judge(spec, &found); err == nil && (v.accel != s.st.Accel || v.reason != s.st.AccelReason) {
		s.step("", "using %s: %s", accelText(v.accel), v.reason)
	}
	return v, err
}

// rememberedAccel is what chooseAccel would answer, if that is known without
// asking the host.
func (p *Provider) rememberedAccel(spec provider.Spec, binary string) (accel, reason string, known bool) {
	var found *finding
	if f, ok := p.recall(binary); ok {
		found = &f
	}
	v, err := judge(spec, found)
	return v.accel, v.reason, err == nil
}

// find asks QEMU for its version and, if it is to try, whether it can accelerate
// guests of the host's own kind. It remembers the answers.
func (p *Provider) find(ctx context.Context, binary string, try bool) (finding, error) {
	f, err := identify(binary)
	if err != nil {
		return finding{}, err
	}
	if f.Version, err = version(ctx, binary); err != nil {
		return finding{}, err
	}
	if err := checkVersion(f.Version); err != nil {
		return finding{}, err
	}
	if try {
		f.Probed = true
		trouble := deviceTrouble()
		if trouble == nil {
			trouble = probe(ctx, binary, runtime.GOARCH, native(), probeLimit)
		}
		if ctx.Err() != nil {
			return finding{}, ctx.Err()
		}
		if trouble != nil {
			f.Trouble = trouble.Error()
		}
	}
	p.remember(f)
	return f, nil
}

var errDenied = errors.New("/dev/kvm is not open to this user")

// deviceTrouble says why the host's KVM device cannot be used, or nil.
func deviceTrouble() error {
	if runtime.GOOS != "linux" {
		return nil
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no /dev/kvm on this host")
	case errors.Is(err, fs.ErrPermission):
		return errDenied
	case err != nil:
		return fmt.Errorf("/dev/kvm cannot be opened: %w", err)
	}
	return f.Close()
}

var versionPattern = regexp.MustCompile(`version (\d+)\.(\d+)(\.\d+)?`)

// version asks QEMU for its version: `7.2.22`.
func version(ctx context.Context, binary string) (string, error) {
	out, err := tool(ctx, "", binary, "--version")
	if err != nil {
		return "", err
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("asking %q for its version: it says %q", binary, out)
	}
	return string(m[0][len("version "):]), nil
}

// checkVersion refuses a QEMU without datagram network links (before 7.2).
func checkVersion(v string) error {
	m := versionPattern.FindStringSubmatch("version " + v)
	if m == nil {
		return fmt.Errorf("reading the QEMU version %q", v)
	}
	major, _ := strconv.Atoi(m[1]) // digits, as matched
	minor, _ := strconv.Atoi(m[2])
	if major < 7 || major == 7 && minor < 2 {
		return fmt.Errorf("checking QEMU: version %s is too old, 7.2 is needed; install a newer one (Debian 12 has it)", v)
	}
	return nil
}

// identify fills in what a finding is about.
func identify(binary string) (finding, error) {
	info, err := os.Stat(binary)
	if err != nil {
		return finding{}, fmt.Errorf("looking at QEMU: %w", err)
	}
	return finding{HostBoot: hostBoot(), Binary: binary, Size: info.Size(), Modified: info.ModTime().UTC()}, nil
}

func (p *Provider) memory() string { return filepath.Join(p.opts.CacheDir, "qemu-accel.json") }

// recall finds what was remembered of a program. Anything wrong with the file
// means that nothing was.
func (p *Provider) recall(binary string) (finding, bool) {
	if p.opts.CacheDir == "" {
		return finding{}, false
	}
	now, err := identify(binary)
	if err != nil || now.HostBoot == "" {
		return finding{}, false
	}
	f, ok := p.findings()[binary]
	same := ok && f.HostBoot == now.HostBoot && f.Size == now.Size && f.Modified.Equal(now.Modified)
	return f, same
}

func (p *Provider) findings() map[string]finding {
	all := map[string]finding{}
	data, err := os.ReadFile(p.memory())
	if err != nil || json.Unmarshal(data, &all) != nil {
		return map[string]finding{}
	}
	return all
}

// remember keeps a finding. That it could not be kept costs time and nothing else.
func (p *Provider) remember(f finding) {
	if p.opts.CacheDir == "" {
		return
	}
	all := p.findings()
	all[f.Binary] = f
	data, err := json.MarshalIndent(all, "", "  ")
	if err == nil {
		err = os.MkdirAll(p.opts.CacheDir, 0o700)
	}
	if err == nil {
		err = dir(p.opts.CacheDir).writePrivate(filepath.Base(p.memory()), append(data, '\n'))
	}
	if err != nil {
		p.log.Debug("remembering what QEMU can do", "error", err)
	}
}
