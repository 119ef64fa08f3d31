package cell

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/config"
	"github.com/rootcell-ai/rootcell/internal/provider"
)

// Diagnosis is what Doctor found.
type Diagnosis struct {
	Findings []provider.Finding `json:"findings"`
	// Install is the one command that installs every missing package, "" when
	// none is missing.
	Install string `json:"install,omitempty"`
	// Packages are what Install installs.
	Packages []string `json:"packages"`
}

// Bad says whether cells cannot run on this host.
func (d Diagnosis) Bad() bool {
	return slices.ContainsFunc(d.Findings, func(f provider.Finding) bool { return f.Level == provider.LevelError })
}

// Doctor checks the host: what the provider needs, what building images needs,
// and the permissions and states of the instances. It changes nothing.
func (c *Cell) Doctor(ctx context.Context, images provider.Preflighter) (Diagnosis, error) {
	var d Diagnosis
	cfg, err := c.Config()
	if err != nil {
		d.Findings = append(d.Findings, configFindings(err)...)
	}
	name := cfg.ResolvedProvider(c.GOOS)
	if make, ok := c.Providers[name]; !ok {
		d.Findings = append(d.Findings, provider.Finding{
			Name: "provider", Level: provider.LevelError, Text: fmt.Sprintf("provider %q is not part of this rootcell", name),
			Fix: "set provider in rootcell.toml to one of " + strings.Join(c.providerNames(), ", "),
		})
	} else if preflight, ok := make(cfg).(provider.Preflighter); ok {
		d.Findings = append(d.Findings, preflight.Preflight(ctx)...)
	}
	if images != nil {
		for _, f := range images.Preflight(ctx) {
			// The provider may need the same tool.
			if !slices.ContainsFunc(d.Findings, func(known provider.Finding) bool { return known.Name == f.Name }) {
				d.Findings = append(d.Findings, f)
			}
		}
	}
	d.Findings = append(d.Findings, c.checkRoot())
	d.Findings = append(d.Findings, c.checkInstances()...)
	d.Packages = []string{}
	for _, f := range d.Findings {
		if f.Package != "" && f.Level != provider.LevelOK {
			d.Packages = append(d.Packages, strings.Fields(f.Package)...)
		}
	}
	slices.Sort(d.Packages)
	d.Packages = slices.Compact(d.Packages)
	if len(d.Packages) > 0 {
		d.Install = InstallCommand(d.Packages, os.Geteuid())
	}
	return d, ctx.Err()
}

// InstallCommand is the one line that installs Debian packages. A machine that
// was never updated has no package lists, so they are fetched first.
func InstallCommand(packages []string, uid int) string {
	sudo := ""
	if uid != 0 {
		sudo = "sudo "
	}
	return sudo + "apt-get update -q && " + sudo + "apt-get install -y --no-install-recommends " + strings.Join(packages, " ")
}

func configFindings(err error) []provider.Finding {
	var problems config.Problems
	if !errors.As(err, &problems) {
		return []provider.Finding{{Name: "configuration", Level: provider.LevelError, Text: err.Error(), Fix: "mend the file"}}
	}
	var found []provider.Finding
	for _, p := range problems {
		found = append(found, provider.Finding{Name: "configuration", Level: provider.LevelError, Text: p.String(), Fix: "mend the file at that place"})
	}
	return found
}

func (c *Cell) checkRoot() provider.Finding {
	f := provider.Finding{Name: "state root", Level: provider.LevelOK, Text: c.Root.Dir}
	info, err := os.Stat(c.Root.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Text += " (made by the first command that needs it)"
	case err != nil:
		f.Level, f.Text, f.Fix = provider.LevelError, err.Error(), "make it accessible, or set ROOTCELL_STATE_DIR"
	case !info.IsDir():
		f.Level, f.Text, f.Fix = provider.LevelError, c.Root.Dir+" is no directory", "move it away, or set ROOTCELL_STATE_DIR"
	case unix.Access(c.Root.Dir, unix.W_OK) != nil:
		f.Level, f.Text, f.Fix = provider.LevelError, c.Root.Dir+" is not writable for you", "make it yours (chown), or set ROOTCELL_STATE_DIR"
	}
	return f
}

// checkInstances looks for files of instances that others can read or that
// belong to somebody else.
func (c *Cell) checkInstances() []provider.Finding {
	names, err := c.Root.Instances()
	if err != nil {
		return []provider.Finding{{Name: "instances", Level: provider.LevelError, Text: err.Error(), Fix: "mend the permissions"}}
	}
	var found []provider.Finding
	for _, name := range names {
		dir := c.Root.InstanceDir(name)
		for _, path := range []string{dir, filepath.Join(dir, "pki"), filepath.Join(dir, "ssh"), filepath.Join(dir, "pki", caKeyFile), filepath.Join(dir, "ssh", "control_ed25519")} {
			info, err := os.Stat(path)
			if err != nil {
				continue
			}
			if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
				found = append(found, provider.Finding{Name: "permissions", Level: provider.LevelError,
					Text: fmt.Sprintf("%s belongs to user %d", path, owner.Uid), Fix: fmt.Sprintf("chown -R %d %s", os.Geteuid(), dir)})
				break
			}
			if info.Mode().Perm()&0o077 != 0 {
				found = append(found, provider.Finding{Name: "permissions", Level: provider.LevelWarning,
					Text: path + " can be read by other users", Fix: "chmod go= " + path + "; the next command does it too"})
			}
		}
		if _, err := readState(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			found = append(found, provider.Finding{Name: "state", Level: provider.LevelError, Text: err.Error(), Fix: "see the text"})
		}
	}
	if states, err := c.Root.states(); err == nil {
		for _, name := range names {
			if _, ok := states[name]; ok {
				if err := checkConflict(name, states); err != nil {
					return append(found, provider.Finding{Name: "subnets", Level: provider.LevelError, Text: err.Error(), Fix: "see the text"})
				}
			}
		}
	}
	return found
}
