package image

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/cavaliergopher/cpio"
)

// The files of an initramfs entry.
const (
	firewallInitrdName = "firewall.cpio"
	agentInitrdName    = "agent.cpio"
)

// buildInitrds makes both initramfs from a root entry and the binaries. They
// are not compressed: unpacking costs more time under emulation than reading.
func (o Options) buildInitrds(root, dir string) error {
	firewall := filepath.Join(dir, firewallInitrdName)
	err := o.step("writing the firewall's initramfs", firewall, func() error {
		files, err := rootTools(root, append(append([]string{}, commonPrograms...), firewallPrograms...))
		if err != nil {
			return err
		}
		files["init"] = o.GuestBinary
		files["usr/sbin/rootcell-firewall"] = o.FirewallBinary
		files["etc/ssl/certs/ca-certificates.crt"] = filepath.Join(root, bundleName)
		if err := addModules(files, root, "firewall.load"); err != nil {
			return err
		}
		return writeInitrd(firewall, files)
	})
	if err != nil {
		return err
	}
	agent := filepath.Join(dir, agentInitrdName)
	return o.step("writing the agent's initramfs", agent, func() error {
		files, err := rootTools(root, commonPrograms)
		if err != nil {
			return err
		}
		files["init"] = o.GuestBinary
		if err := addModules(files, root, "agent.load"); err != nil {
			return err
		}
		return writeInitrd(agent, files)
	})
}

// rootTools maps the paths of programs and their libraries in the initramfs to
// files of a root entry.
func rootTools(entry string, programs []string) (map[string]string, error) {
	tools := filepath.Join(entry, toolsDir)
	root, err := os.OpenRoot(tools)
	if err != nil {
		return nil, fmt.Errorf("opening the tools: %w", err)
	}
	defer root.Close()
	files := map[string]string{}
	for queue := slices.Clone(programs); len(queue) > 0; queue = queue[1:] {
		name := queue[0]
		if _, known := files[name]; known {
			continue
		}
		files[name] = filepath.Join(tools, name)
		needs, err := requirements(root, name)
		if err != nil {
			return nil, err
		}
		queue = append(queue, needs...)
	}
	return files, nil
}

func addModules(files map[string]string, entry, list string) error {
	text, err := os.ReadFile(filepath.Join(entry, modulesDir, list))
	if err != nil {
		return fmt.Errorf("reading the module list: %w", err)
	}
	files["lib/modules/load"] = filepath.Join(entry, modulesDir, list)
	for line := range strings.Lines(string(text)) {
		base := path.Base(strings.TrimSpace(line))
		files["lib/modules/"+base] = filepath.Join(entry, modulesDir, base)
	}
	return nil
}

// initrdLinks stand for the merged /usr of the distribution.
var initrdLinks = map[string]string{"lib64": "usr/lib64", "sbin": "usr/sbin", "bin": "usr/sbin"}

// initrdTexts are small files that programs look for.
var initrdTexts = map[string]string{
	"etc/passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nrootcell:x:900:900:rootcell firewall:/:/usr/sbin/nologin\n",
	"etc/group":  "root:x:0:\nrootcell:x:900:\n",
	"etc/hosts":  "127.0.0.1\tlocalhost\n",
}

// writeInitrd writes files (path in the archive → file on this machine) as a
// cpio archive of the kernel's kind. The same files make the same archive.
func writeInitrd(name string, files map[string]string) error {
	out, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("making %q: %w", name, err)
	}
	w := cpio.NewWriter(out)
	err = fillInitrd(w, files)
	if err := errors.Join(err, w.Close(), out.Close()); err != nil {
		return fmt.Errorf("writing %q: %w", name, err)
	}
	return nil
}

func fillInitrd(w *cpio.Writer, files map[string]string) error {
	contents := map[string][]byte{}
	modes := map[string]cpio.FileMode{}
	for target, source := range files {
		text, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		contents[target], modes[target] = text, cpio.TypeReg|0o755
		if !strings.HasPrefix(target, "usr/") && target != "init" {
			modes[target] = cpio.TypeReg | 0o644
		}
	}
	for target, text := range initrdTexts {
		contents[target], modes[target] = []byte(text), cpio.TypeReg|0o644
	}
	for target, to := range initrdLinks {
		contents[target], modes[target] = []byte(to), cpio.TypeSymlink|0o777
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "usr/lib64", "usr/lib", "usr/sbin", "var/log", "lib/modules"} {
		modes[dir] = cpio.TypeDir | 0o755
	}
	for _, target := range slices.Collect(maps.Keys(modes)) {
		for parent := path.Dir(target); parent != "."; parent = path.Dir(parent) {
			modes[parent] = cpio.TypeDir | 0o755
		}
	}
	names := make([]string, 0, len(modes))
	for name := range modes {
		names = append(names, name)
	}
	sort.Strings(names) // directories come before what is in them
	for inode, name := range names {
		text := contents[name]
		header := &cpio.Header{Name: name, Mode: modes[name], Size: int64(len(text)), ModTime: time.Unix(epoch, 0), Inode: int64(inode + 1), Links: 1}
		if modes[name]&^cpio.ModePerm == cpio.TypeSymlink {
			header.Linkname = string(text)
		}
		if err := w.WriteHeader(header); err != nil {
			return fmt.Errorf("adding %q: %w", name, err)
		}
		if _, err := w.Write(text); err != nil {
			return fmt.Errorf("adding %q: %w", name, err)
		}
	}
	return nil
}
