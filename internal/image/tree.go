package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// finishTree takes from the unpacked root what the initramfs need, into dir,
// and gives the root its fixed files.
func (o Options) finishTree(tree, dir string) error {
	if err := copyFile(filepath.Join(tree, "boot/vmlinuz"), filepath.Join(dir, kernelName), 0o644); err != nil {
		return fmt.Errorf("taking the kernel: %w", err)
	}
	if err := copyFile(filepath.Join(tree, "etc/ssl/certs/ca-certificates.crt"), filepath.Join(dir, bundleName), 0o644); err != nil {
		return fmt.Errorf("taking the CA bundle: %w", err)
	}
	if err := takeModules(tree, filepath.Join(dir, modulesDir)); err != nil {
		return fmt.Errorf("taking kernel modules: %w", err)
	}
	if err := takePrograms(tree, filepath.Join(dir, toolsDir), append(append([]string{}, commonPrograms...), firewallPrograms...)); err != nil {
		return fmt.Errorf("taking programs: %w", err)
	}
	if err := configureTree(tree, o.Suite); err != nil {
		return fmt.Errorf("configuring the agent's root: %w", err)
	}
	if err := clampTimes(tree); err != nil {
		return fmt.Errorf("setting file times of the agent's root: %w", err)
	}
	return nil
}

// clampTimes gives what was just written the recipe's time, as the packages'
// files have it.
func clampTimes(tree string) error {
	latest := unix.NsecToTimespec(epoch * 1e9)
	return filepath.WalkDir(tree, func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) {
			return fs.SkipDir // of a subordinate user; nothing was written there
		}
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil || info.ModTime().Unix() <= epoch {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{latest, latest}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// configureTree writes the recipe's files into the root and takes out what must
// not be the same in every agent.
func configureTree(tree, suite string) error {
	remove := append([]string{
		"boot/vmlinuz", "etc/apt/sources.list", "etc/machine-id", "var/lib/dbus/machine-id", "etc/resolv.conf", "etc/hostname",
	}, lazyUnits...)
	keys, err := filepath.Glob(filepath.Join(tree, "etc/ssh/ssh_host_*"))
	if err != nil {
		return err
	}
	// Invariant: no host key is in an image; each instance's own is written at
	// boot (TestConfigureTree).
	for _, key := range keys {
		remove = append(remove, strings.TrimPrefix(key, tree+"/"))
	}
	for _, name := range remove {
		if err := os.Remove(filepath.Join(tree, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	place := func(name string, text []byte) error {
		target := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o644)
	}
	if err := eachRootFile(place); err != nil {
		return err
	}
	if err := place("etc/apt/sources.list.d/debian.sources", []byte(sources(suite))); err != nil {
		return err
	}
	if text := gitConfig(suite); text != "" {
		if err := place("etc/gitconfig", []byte(text)); err != nil {
			return err
		}
	}
	if err := place("etc/fstab", nil); err != nil {
		return err
	}
	for _, unit := range maskedUnits {
		if err := symlink("/dev/null", filepath.Join(tree, "etc/systemd/system", unit)); err != nil {
			return err
		}
	}
	for unit, target := range enabledUnits {
		// What the packages enabled for a later stage of the boot.
		_ = os.Remove(filepath.Join(tree, "etc/systemd/system/multi-user.target.wants", unit))
		if err := symlink(target, filepath.Join(tree, "etc/systemd/system/sysinit.target.wants", unit)); err != nil {
			return err
		}
	}
	return symlink("/usr/lib/systemd/system/multi-user.target", filepath.Join(tree, "etc/systemd/system/default.target"))
}

func symlink(target, name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, name)
}

// takeModules copies the modules that the initramfs load and writes the two
// lists, each with dependencies before what needs them.
func takeModules(tree, target string) error {
	found, err := filepath.Glob(filepath.Join(tree, "usr/lib/modules/*/modules.dep"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("looking for one modules.dep in %q: found %d", tree, len(found))
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		return err
	}
	deps, err := parseModulesDep(string(text))
	if err != nil {
		return err
	}
	builtin, err := os.ReadFile(filepath.Join(filepath.Dir(found[0]), "modules.builtin"))
	if err != nil {
		return err
	}
	if err := deps.check(string(builtin)); err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	lists := map[string][]string{
		"agent.load":    commonModules,
		"firewall.load": append(append([]string{}, commonModules...), firewallModules...),
	}
	for list, names := range lists {
		var lines strings.Builder
		for _, module := range deps.order(names) {
			base := path.Base(module)
			if err := copyFile(filepath.Join(filepath.Dir(found[0]), module), filepath.Join(target, base), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(&lines, "/lib/modules/%s\n", base)
		}
		if err := os.WriteFile(filepath.Join(target, list), []byte(lines.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// moduleDeps maps a module's path to those it depends on.
type moduleDeps map[string][]string

// parseModulesDep reads depmod's list: "path: path path …".
func parseModulesDep(text string) (moduleDeps, error) {
	deps := moduleDeps{}
	for line := range strings.Lines(text) {
		module, needs, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			return nil, fmt.Errorf("reading modules.dep: no colon in %q", line)
		}
		if !fs.ValidPath(module) {
			return nil, fmt.Errorf("reading modules.dep: %q leaves its directory", module)
		}
		deps[module] = strings.Fields(needs)
	}
	return deps, nil
}

// check refuses a kernel that could not come up with what the initramfs bring:
// without the drivers of its disk or its configuration a guest switches itself
// off before anything answers (TestTakeModulesRefuses). builtin is the kernel's
// list of what needs no file.
func (d moduleDeps) check(builtin string) error {
	known := map[string]bool{}
	for line := range strings.Lines(builtin) {
		known[moduleName(strings.TrimSpace(line))] = true
	}
	for module := range d {
		if !strings.HasSuffix(module, ".ko") {
			return fmt.Errorf("taking the module %q: it is compressed, and the initramfs loads plain ones only", module)
		}
		known[moduleName(module)] = true
	}
	for _, name := range requiredModules {
		if !known[name] {
			return fmt.Errorf("looking for the module %q: the kernel has it neither as a file nor built in", name)
		}
	}
	return nil
}

// order returns the paths of the named modules and of all they depend on, each
// after its dependencies. Unknown names are built in, or not of this
// architecture, and are left out.
func (d moduleDeps) order(names []string) []string {
	byName := map[string]string{}
	for module := range d {
		byName[moduleName(module)] = module
	}
	var ordered []string
	seen := map[string]bool{}
	var visit func(module string)
	visit = func(module string) {
		if seen[module] {
			return
		}
		seen[module] = true
		for _, need := range d[module] {
			visit(need)
		}
		ordered = append(ordered, module)
	}
	for _, name := range names {
		if module, ok := byName[name]; ok {
			visit(module)
		}
	}
	return ordered
}

// moduleName is the module's name as the kernel spells it.
func moduleName(module string) string {
	name, _, _ := strings.Cut(path.Base(module), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
