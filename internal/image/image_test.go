package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"
)

func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestModuleOrder(t *testing.T) {
	deps, err := parseModulesDep("kernel/a/virtio_net.ko: kernel/a/net_failover.ko kernel/a/virtio.ko\n" +
		"kernel/a/net_failover.ko: kernel/a/failover.ko\nkernel/a/failover.ko:\nkernel/a/virtio.ko:\nkernel/b/virtio-rng.ko: kernel/a/virtio.ko\n")
	if err != nil {
		t.Fatal(err)
	}
	got := deps.order([]string{"virtio_rng", "built_in", "virtio_net"})
	want := []string{
		"kernel/a/virtio.ko", "kernel/b/virtio-rng.ko", "kernel/a/failover.ko", "kernel/a/net_failover.ko", "kernel/a/virtio_net.ko",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"no colon\n", "../../etc/shadow: \n", "/etc/shadow:\n"} {
		if _, err := parseModulesDep(bad); err == nil {
			t.Errorf("parseModulesDep(%q) accepted", bad)
		}
	}
}

// Debian 13's kernel has some of the drivers built in; its package has the others compressed.
func TestTakeModulesRefuses(t *testing.T) {
	const dep = "kernel/virtio_blk.ko:\nkernel/virtio_net.ko:\nkernel/qemu_fw_cfg.ko:\nkernel/nf_tables.ko:\nkernel/nft_ct.ko: kernel/nf_tables.ko\n"
	const builtin = "kernel/virtio_pci.ko\nkernel/ext4.ko\n"
	tests := map[string]struct{ dep, builtin, problem string }{
		"files and built-in drivers": {dep, builtin, ""},
		"compressed modules":         {strings.ReplaceAll(dep, ".ko", ".ko.xz"), builtin, "compressed"},
		"one compressed module":      {dep + "kernel/button.ko.zst:\n", builtin, "compressed"},
		"no disk driver":             {strings.Replace(dep, "virtio_blk", "virtio_scsi", 1), builtin, `"virtio_blk"`},
		"no file system":             {dep, "kernel/virtio_pci.ko\n", `"ext4"`},
		"no module at all":           {"", builtin, "virtio_blk"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tree, target := t.TempDir(), t.TempDir()
			const dir = "usr/lib/modules/6.12.0-cloud-amd64/"
			files := map[string]string{dir + "modules.dep": test.dep, dir + "modules.builtin": test.builtin}
			for line := range strings.Lines(test.dep) {
				module, _, _ := strings.Cut(line, ":")
				files[dir+module] = "module"
			}
			put(t, tree, files)
			err := takeModules(tree, target)
			if test.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.problem) {
					t.Fatalf("error %v, want one about %q", err, test.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			list, err := os.ReadFile(filepath.Join(target, "firewall.load"))
			if err != nil || !strings.Contains(string(list), "/lib/modules/nf_tables.ko\n/lib/modules/nft_ct.ko\n") {
				t.Errorf("list %q, %v", list, err)
			}
		})
	}
}

func TestWriteInitrd(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"guest": "binary", "bundle": "certs"})
	files := map[string]string{
		"init": filepath.Join(dir, "guest"), "usr/sbin/tool": filepath.Join(dir, "guest"), "etc/ssl/certs/b.crt": filepath.Join(dir, "bundle"),
	}
	first, second := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	for _, name := range []string{first, second} {
		if err := writeInitrd(name, files); err != nil {
			t.Fatal(err)
		}
	}
	a, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(second)
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("two archives of the same files differ (%v)", err)
	}
	seen := map[string]cpio.FileMode{}
	for r := cpio.NewReader(bytes.NewReader(a)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		// The kernel makes no parents: a directory missing or late loses what
		// is in it.
		for parent := filepath.Dir(header.Name); parent != "."; parent = filepath.Dir(parent) {
			if seen[parent]&^cpio.ModePerm != cpio.TypeDir {
				t.Errorf("%q comes before its directory %q", header.Name, parent)
			}
		}
		seen[header.Name] = header.Mode
	}
	for name, want := range map[string]cpio.FileMode{
		"init": cpio.TypeReg | 0o755, "usr/sbin/tool": cpio.TypeReg | 0o755, "etc/ssl/certs/b.crt": cpio.TypeReg | 0o644,
		"var": cpio.TypeDir | 0o755, "var/log": cpio.TypeDir | 0o755, "dev": cpio.TypeDir | 0o755, "lib64": cpio.TypeSymlink | 0o777,
	} {
		if seen[name] != want {
			t.Errorf("%s has mode %v, want %v", name, seen[name], want)
		}
	}
}

func TestConfigureTree(t *testing.T) {
	tree := t.TempDir()
	put(t, tree, map[string]string{
		"etc/ssh/ssh_host_rsa_key": "secret", "etc/ssh/ssh_host_ed25519_key": "secret", "etc/machine-id": "x", "boot/vmlinuz": "k",
		"etc/apt/sources.list": "deb http://deb.debian.org/debian bookworm main\n", "etc/ssh/sshd_config": "PasswordAuthentication yes\n",
		lazyUnits[0]: "",
	})
	if err := configureTree(tree, "bookworm"); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_ed25519_key", "etc/machine-id", "etc/apt/sources.list", lazyUnits[0]} {
		if _, err := os.Lstat(filepath.Join(tree, gone)); err == nil {
			t.Errorf("%s is still there", gone)
		}
	}
	list, err := os.ReadFile(filepath.Join(tree, "etc/apt/sources.list.d/debian.sources"))
	if err != nil || strings.Contains(string(list), "http://") || strings.Count(string(list), "https://deb.debian.org/") != 2 {
		t.Errorf("package sources, which must be HTTPS: %s (%v)", list, err)
	}
	sshd, err := os.ReadFile(filepath.Join(tree, "etc/ssh/sshd_config"))
	if err != nil || !strings.Contains(string(sshd), "PasswordAuthentication no\n") {
		t.Errorf("sshd_config: %s (%v)", sshd, err)
	}
	if target, err := os.Readlink(filepath.Join(tree, "etc/systemd/system/systemd-udevd.service")); err != nil || target != "/dev/null" {
		t.Errorf("udev is not masked: %q, %v", target, err)
	}
	if err := configureTree(tree, "bookworm"); err != nil {
		t.Errorf("configuring again: %v", err)
	}
}

func TestTakeProgramsBringsTheirLibraries(t *testing.T) {
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil || !strings.HasPrefix(shell, "/usr/bin/") {
		t.Skipf("this host's shell is %q: no merged /usr to take it from", shell)
	}
	target := t.TempDir()
	if err := takePrograms("/", target, []string{strings.TrimPrefix(shell, "/")}); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, pattern := range []string{"usr/lib/*/libc.so.6", "usr/lib*/ld-linux*", "usr/bin/*"} {
		matches, err := filepath.Glob(filepath.Join(target, pattern))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, matches...)
	}
	if len(found) != 3 {
		t.Errorf("took %q, want the program, its interpreter and its C library", found)
	}
}

func options(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, map[string]string{"guest": "1", "firewall": "2"})
	o, err := Options{
		Suite: "bookworm", Arch: "amd64", GuestBinary: filepath.Join(dir, "guest"), FirewallBinary: filepath.Join(dir, "firewall"),
		CacheDir: filepath.Join(dir, "cache"),
	}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestKeys(t *testing.T) {
	o := options(t)
	root, err := o.rootKey()
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := o.initrdKey(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.GuestBinary, []byte("3"), 0o644); err != nil {
		t.Fatal(err)
	}
	sameRoot, err := o.rootKey()
	if err != nil || sameRoot != root {
		t.Errorf("a rebuilt binary made another root: %v", err)
	}
	other, err := o.initrdKey(root)
	if err != nil || other == initrd {
		t.Errorf("a rebuilt binary made no other initramfs: %v", err)
	}
	o.Arch = "arm64"
	if arm, err := o.rootKey(); err != nil || arm == root {
		t.Errorf("another architecture has the same root: %v", err)
	}
}

// complete is a cache entry with every file that Build looks for.
func complete(t *testing.T, o Options) (root string) {
	t.Helper()
	key, err := o.rootKey()
	if err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(o.CacheDir, rootPrefix+key)
	put(t, root, map[string]string{
		kernelName: "k", agentImageName: "disk", bundleName: "certs",
		modulesDir + "/agent.load": "/lib/modules/a.ko\n", modulesDir + "/firewall.load": "/lib/modules/a.ko\n", modulesDir + "/a.ko": "module",
	})
	return root
}

func TestBuildUsesWhatTheCacheHas(t *testing.T) {
	shell := "/bin/sh"
	o := options(t)
	root := complete(t, o)
	for _, tool := range slices.Concat(commonPrograms, firewallPrograms) {
		text, err := os.ReadFile(shell)
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(root, toolsDir), map[string]string{tool: string(text)})
	}
	resolved, err := filepath.EvalSymlinks(shell)
	if err != nil || !strings.HasPrefix(resolved, "/usr/") {
		t.Skip("no merged /usr on this host")
	}
	if err := takePrograms("/", filepath.Join(root, toolsDir), []string{strings.TrimPrefix(resolved, "/")}); err != nil {
		t.Fatal(err)
	}
	first, err := Build(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{first.Kernel, first.AgentImage, first.FirewallInitrd, first.AgentInitrd} {
		if info, err := os.Stat(name); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	var steps int
	o.Progress = func(Step) { steps++ }
	second, err := Build(context.Background(), o)
	if err != nil || second != first || steps != 0 {
		t.Errorf("a second build took %d steps to %+v, %v", steps, second, err)
	}

	removed, err := Prune(context.Background(), o.CacheDir, []string{first.Kernel})
	if err != nil || len(removed) != 1 || !strings.HasPrefix(removed[0].Name, initrdPrefix) {
		t.Errorf("Prune = %v, %v; want the initramfs alone", removed, err)
	}
	if _, err := os.Stat(first.AgentImage); err != nil {
		t.Errorf("Prune took a root in use: %v", err)
	}
}

func TestMakeIsAtomicAndGoesOn(t *testing.T) {
	c, err := openCache(context.Background(), t.TempDir(), func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	boom := errors.New("killed")
	_, err = c.make("root-x", func(dir string) error {
		put(t, dir, map[string]string{"half": "done"})
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("make = %v", err)
	}
	if _, ok := c.entry("root-x"); ok {
		t.Error("an unfinished entry counts as complete")
	}
	dir, err := c.make("root-x", func(dir string) error {
		_, err := os.Stat(filepath.Join(dir, "half"))
		return err
	})
	if err != nil {
		t.Errorf("the second attempt did not find the first one's work: %v", err)
	}
	if found, ok := c.entry("root-x"); !ok || found != dir {
		t.Error("a finished entry is not there")
	}
}

func TestOpenCacheWaitsForAnother(t *testing.T) {
	dir := t.TempDir()
	first, err := openCache(context.Background(), dir, func() {})
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan struct{})
	opened := make(chan error)
	go func() {
		second, err := openCache(context.Background(), dir, func() { close(waiting) })
		if err == nil {
			second.close()
		}
		opened <- err
	}()
	<-waiting
	first.close()
	if err := <-opened; err != nil {
		t.Error(err)
	}

	held, err := openCache(context.Background(), dir, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer held.close()
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := openCache(ctx, dir, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("openCache = %v, want the end of its context", err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	err := diskFull(&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, "/cache")
	if !strings.Contains(err.Error(), "image prune") || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full disk: %v", err)
	}
	if err := diskFull(errors.New("mmdebstrap: cp: No space left on device"), "/cache"); !strings.Contains(err.Error(), "MiB free") {
		t.Errorf("full disk in a program: %v", err)
	}
	o := options(t)
	o.GuestBinary = filepath.Join(t.TempDir(), "none")
	if _, err := Build(context.Background(), o); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("no binary: %v", err)
	}
	for _, bad := range []Options{{Suite: "sid"}, {Suite: "bookworm", Arch: "riscv64"}} {
		if _, err := Build(context.Background(), bad); err == nil {
			t.Errorf("Build(%+v) made something", bad)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if err := Missing(); err == nil || !strings.Contains(err.Error(), "apt-get install") || !strings.Contains(err.Error(), "mmdebstrap") {
		t.Errorf("missing tools: %v", err)
	}
}

func TestListOfNoCacheIsEmpty(t *testing.T) {
	entries, err := List(filepath.Join(t.TempDir(), "none"))
	if err != nil || len(entries) != 0 {
		t.Errorf("List = %v, %v", entries, err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var out tail
	for i := range 1000 {
		io.WriteString(&out, strings.Repeat("x", i%80)+"\n")
	}
	io.WriteString(&out, "E: the reason\n")
	if lines := out.lines(); !strings.HasSuffix(lines, "E: the reason") || len(lines) > tailBytes {
		t.Errorf("kept %q", lines)
	}
}
