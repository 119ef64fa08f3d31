package qemu

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// diskWanted is how much room a first cell takes: images, and an agent that has
// installed something.
const diskWanted = 4 << 30

// Preflight implements provider.Preflighter.
func (p *Provider) Preflight(ctx context.Context) []provider.Finding {
	program := binaryName(runtime.GOARCH)
	if p.opts.Binary != "" {
		program = p.opts.Binary
	}
	var findings []provider.Finding
	binary, err := exec.LookPath(program)
	if err != nil {
		findings = append(findings, missing(program, packageFor(binaryName(runtime.GOARCH))))
	} else {
		findings = append(findings, p.checkQEMU(ctx, binary)...)
	}
	for _, name := range []string{"qemu-img", "mke2fs"} {
		path, err := findTool(name)
		if err != nil {
			findings = append(findings, missing(name, packageFor(name)))
			continue
		}
		findings = append(findings, provider.Finding{Name: name, Level: provider.LevelOK, Text: path})
	}
	return append(findings, p.checkDisk())
}

func missing(program, pkg string) provider.Finding {
	return provider.Finding{Name: program, Level: provider.LevelError, Text: "it is not installed", Fix: installCommand(pkg), Package: pkg}
}

// checkQEMU checks the version and the acceleration of an installed QEMU.
func (p *Provider) checkQEMU(ctx context.Context, binary string) []provider.Finding {
	v, err := version(ctx, binary)
	if err == nil {
		err = checkVersion(v)
	}
	if err != nil {
		return []provider.Finding{{Name: "qemu", Level: provider.LevelError, Text: err.Error(), Fix: installCommand(packageFor(binaryName(runtime.GOARCH)))}}
	}
	findings := []provider.Finding{{Name: "qemu", Level: provider.LevelOK, Text: fmt.Sprintf("%s, version %s", binary, v)}}
	found, known := p.recall(binary)
	if !known || !found.Probed {
		if found, err = p.find(ctx, binary, true); err != nil {
			return append(findings, provider.Finding{Name: "acceleration", Level: provider.LevelError, Text: err.Error(), Fix: "rootcell doctor"})
		}
	}
	verdict, err := judge(provider.Spec{Accel: p.opts.Accel}, &found)
	a := provider.Finding{Name: "acceleration", Level: provider.LevelOK}
	switch {
	case err != nil:
		a.Level, a.Text, a.Fix = provider.LevelError, err.Error(), `set accel = "auto" below [qemu] in rootcell.toml`
	case verdict.accel == "tcg" && p.opts.Accel != "tcg":
		a.Level, a.Text, a.Fix = provider.LevelWarning, "software emulation, several times slower: "+verdict.reason, accelFix()
	default:
		a.Text = fmt.Sprintf("%s: %s", accelText(verdict.accel), verdict.reason)
	}
	return append(findings, a)
}

// accelFix is what may bring acceleration back.
func accelFix() string {
	if errors.Is(deviceTrouble(), errDenied) {
		name := "$USER"
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
		return fmt.Sprintf("sudo usermod -aG kvm %s, then log in again", name)
	}
	if runtime.GOOS == "darwin" {
		return "use a Mac with Hypervisor.framework"
	}
	return "use a host with hardware virtualisation (VMX or SVM) open to it; rootcell works without"
}

// checkDisk looks for room where instances live.
func (p *Provider) checkDisk() provider.Finding {
	d := p.opts.Dir
	if d == "" {
		d = "."
	}
	f := provider.Finding{Name: "disk space", Level: provider.LevelOK}
	var fs unix.Statfs_t
	if err := unix.Statfs(d, &fs); err != nil {
		if errors.Is(err, unix.ENOENT) {
			f.Text = fmt.Sprintf("%q is not there yet", d)
			return f
		}
		f.Level, f.Text, f.Fix = provider.LevelWarning, fmt.Sprintf("asking for the free space of %q: %v", d, err), "ls -ld "+d
		return f
	}
	free := int64(fs.Bavail) * int64(fs.Bsize)
	f.Text = fmt.Sprintf("%s free in %q", bytesText(free>>20<<20), d)
	if free < diskWanted {
		f.Level = provider.LevelWarning
		f.Text += fmt.Sprintf("; a cell and its images take about %s", bytesText(diskWanted))
		f.Fix = "free some space, or set ROOTCELL_STATE_DIR to a larger disk"
	}
	return f
}
