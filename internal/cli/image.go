package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/rootcell-ai/rootcell/internal/cell"
	"github.com/rootcell-ai/rootcell/internal/image"
	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/ui"
)

// imageBuilder makes guest images with the binaries that belong to this
// rootcell.
type imageBuilder struct{ a *app }

// Ensure implements cell.Images.
func (b *imageBuilder) Ensure(ctx context.Context, arch string) (cell.ImageSet, error) {
	set, err := b.build(ctx, arch)
	if err != nil {
		return cell.ImageSet{}, err
	}
	return cell.ImageSet{Kernel: set.Kernel, FirewallInitrd: set.FirewallInitrd, AgentInitrd: set.AgentInitrd, AgentRoot: set.AgentImage}, nil
}

func (b *imageBuilder) build(ctx context.Context, arch string) (image.Set, error) {
	guest, err := b.a.guestBinary("rootcell-guest", arch)
	if err != nil {
		return image.Set{}, err
	}
	firewall, err := b.a.guestBinary("rootcell-firewall", arch)
	if err != nil {
		return image.Set{}, err
	}
	return image.Build(ctx, image.Options{
		Arch: arch, GuestBinary: guest, FirewallBinary: firewall,
		Progress: func(s image.Step) {
			if !s.Done {
				b.a.report(s.Text)
			}
		},
	})
}

// guestBinary finds a program for guests: in $ROOTCELL_GUEST_BINARIES, beside
// this program, or in libexec. A name with the architecture comes first, for
// hosts of another one.
func (a *app) guestBinary(name, arch string) (string, error) {
	dirs := []string{a.getenv("ROOTCELL_GUEST_BINARIES")}
	if dirs[0] == "" {
		here := filepath.Dir(a.Executable)
		dirs = []string{here, filepath.Join(here, "..", "libexec", "rootcell")}
	}
	names := []string{name + "-linux-" + arch}
	if runtime.GOOS == "linux" && runtime.GOARCH == arch {
		names = append(names, name)
	}
	for _, dir := range dirs {
		for _, n := range names {
			path := filepath.Join(dir, n)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("finding %q for the guests: it is in none of %q; run `make build`, or set ROOTCELL_GUEST_BINARIES to the directory that has it", names[0], dirs)
}

// Preflight implements provider.Preflighter: what building needs of the host.
func (b *imageBuilder) Preflight(context.Context) []provider.Finding {
	var findings []provider.Finding
	for _, tool := range image.Tools() {
		f := provider.Finding{Name: tool.Program, Level: provider.LevelOK}
		path, err := exec.LookPath(tool.Program)
		if f.Text = path; err != nil {
			f.Level, f.Text = provider.LevelError, "missing; images cannot be built without it"
			f.Fix, f.Package = "install the Debian package "+tool.Package, tool.Package
		}
		findings = append(findings, f)
	}
	return findings
}

type imageCmd struct {
	List  imageListCmd  `cmd:"" help:"List what the cache of images holds."`
	Build imageBuildCmd `cmd:"" help:"Build the Debian images that the cache lacks."`
	Prune imagePruneCmd `cmd:"" help:"Delete images that no instance uses."`
}

type imageListCmd struct{}

func (*imageListCmd) Run(a *app) error {
	dir, err := image.DefaultCacheDir()
	if err != nil {
		return err
	}
	entries, err := image.List(dir)
	if err != nil {
		return err
	}
	if entries == nil {
		entries = []image.Entry{}
	}
	return a.answer(imageList{dir, entries}, func() {
		if len(entries) == 0 {
			a.ui.Printf("no images in %s; `rootcell image build` makes them", dir)
			return
		}
		a.printEntries(entries)
	})
}

type imageList struct {
	Directory string        `json:"directory"`
	Images    []image.Entry `json:"images"`
}

func (a *app) printEntries(entries []image.Entry) {
	rows := make([][]string, len(entries))
	for i, e := range entries {
		state := "complete"
		if e.Partial {
			state = "partial"
		}
		rows[i] = []string{e.Name, fmt.Sprintf("%d MiB", e.Bytes>>20), e.Made.Local().Format(time.DateTime), state}
	}
	a.ui.Table([]string{"image", "size", "made", "state"}, rows)
}

type imageBuildCmd struct {
	Arch string `placeholder:"ARCH" enum:"amd64,arm64,host" default:"host" help:"amd64 or arm64 (default: the host's)."`
}

func (cmd *imageBuildCmd) Run(a *app) error {
	arch := cmd.Arch
	if arch == "host" {
		arch = runtime.GOARCH
	}
	set, err := (&imageBuilder{a}).build(a.ctx, arch)
	if err != nil {
		return err
	}
	return a.answer(struct {
		ID string `json:"id"`
	}{set.ID}, func() { a.ui.Printf("%s", set.ID) })
}

type imagePruneCmd struct{}

func (*imagePruneCmd) Run(a *app) error {
	h, err := a.host()
	if err != nil {
		return err
	}
	keep, err := h.ImagesInUse()
	if err != nil {
		return err
	}
	dir, err := image.DefaultCacheDir()
	if err != nil {
		return err
	}
	removed, err := image.Prune(a.ctx, dir, keep)
	if err != nil {
		return err
	}
	if removed == nil {
		removed = []image.Entry{}
	}
	return a.answer(imageList{dir, removed}, func() {
		if len(removed) == 0 {
			a.ui.Printf("nothing to delete")
			return
		}
		for _, e := range removed {
			a.ui.Printf("deleted %s", ui.Safe(e.Name))
		}
	})
}
