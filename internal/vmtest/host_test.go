//go:build linux

package vmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

const farSide = netlab.InternetAddr

// host is the machine that rootcell runs on: a network namespace, a state directory and the built program.
type host struct {
	ns      *netlab.Namespace
	world   *netlab.World
	program string
	project string // working directory with the project's rootcell.toml and instances/
	cache   string // environment entry that names the image cache
	uid     int    // the user that runs rootcell; 0 is root
}

// newHost prepares a host whose far side serves names below test.example, or skips with the reason.
func newHost(t *testing.T) *host {
	t.Helper()
	if os.Getenv("ROOTCELL_TEST_LEVEL") != "vm" {
		t.Skip("boots real machines; run by make test, or with ROOTCELL_TEST_LEVEL=vm")
	}
	program, err := filepath.Abs("../../bin/rootcell")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Skip("bin/rootcell is not built; run make build")
	}
	for _, tool := range []string{"qemu-img", "mmdebstrap"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed; run checks/packages.sh build", tool)
		}
	}
	buildImages(t, program)
	ns, internet := netlab.NewHost(t)
	h := &host{ns: ns, program: program, cache: cacheEnv(t), world: netlab.NewWorld(t, internet, farSide)}
	for _, name := range []string{"ok", "later", "no", "scoped", "git", "deb"} {
		h.world.Host(t, name+".test.example", nil)
	}
	dir, err := os.MkdirTemp("", "rcvm") // short: sockets live below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h.project = dir
	h.write(t, "roots.pem", h.world.Roots)
	h.write(t, "rootcell.toml", fmt.Sprintf(`schema = 1
provider = "qemu"
[guest]
os = "debian"
[agent]
cpus = 2
memory = "1GiB"
disk = "6GiB"
[policy]
resolvers = ["%s:53"]
upstream_roots = %q
`, farSide, filepath.Join(dir, "roots.pem")))
	return h
}

func (h *host) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(h.project, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if h.uid != 0 {
		for p := path; p != h.project; p = filepath.Dir(p) {
			if err := os.Chown(p, h.uid, h.uid); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// cacheEnv points every run at the user's own image cache: building a Debian takes minutes.
func cacheEnv(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return "XDG_CACHE_HOME=" + cache
}

// buildImages fills the image cache. It runs outside the namespaces, where the distribution's mirror is reached.
func buildImages(t *testing.T, program string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "image", "build")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), cacheEnv(t))
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("rootcell image build: %v\n%s", err, out)
	}
	t.Logf("images ready after %s", time.Since(start).Round(time.Second))
}

// result is what a command printed and how it ended.
type result struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// command prepares rootcell in the host's namespace. Its environment is small and known.
func (h *host) command(ctx context.Context, args ...string) *exec.Cmd {
	argv := []string{"netns", "exec", h.ns.Name}
	if h.uid != 0 {
		uid := fmt.Sprint(h.uid)
		argv = append(argv, "setpriv", "--reuid", uid, "--regid", uid, "--clear-groups")
	}
	cmd := exec.CommandContext(ctx, "ip", append(append(argv, h.program), args...)...)
	cmd.Dir = h.project
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + h.project, h.cache, "LANG=C.UTF-8", "TERM=dumb",
		"XDG_RUNTIME_DIR=" + h.project,
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// rootcell runs the program and returns how it ended; it fails the test only when it cannot be run at all.
func (h *host) rootcell(t *testing.T, args ...string) result {
	t.Helper()
	return h.rootcellInput(t, "", args...)
}

func (h *host) rootcellInput(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	cmd := h.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("running rootcell %v: %v", args, err)
	}
	r := result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(start)}
	t.Logf("rootcell %s: exit %d after %s", strings.Join(args, " "), r.code, r.took.Round(10*time.Millisecond))
	return r
}

// must runs the program and fails the test unless it succeeds.
func (h *host) must(t *testing.T, args ...string) string {
	t.Helper()
	r := h.rootcell(t, args...)
	if r.code != 0 {
		t.Fatalf("rootcell %s: exit %d\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// sh runs a shell line in the agent as root and returns how it ended.
func (h *host) sh(t *testing.T, line string) result {
	t.Helper()
	return h.rootcell(t, "--", "sudo", "sh", "-c", line)
}

// facts runs several shell lines in the agent as root, over one connection, and returns what each printed.
func (h *host) facts(t *testing.T, lines map[string]string) map[string]string {
	t.Helper()
	const mark = "=====fact "
	var script strings.Builder
	for name, line := range lines {
		fmt.Fprintf(&script, "echo %q\n( %s\n) 2>&1\n", mark+name, line)
	}
	r := h.rootcellInput(t, script.String(), "--", "sudo", "bash", "-s")
	facts := map[string]string{}
	for _, part := range strings.Split(r.stdout, mark)[1:] {
		name, text, _ := strings.Cut(part, "\n")
		facts[name] = strings.TrimSpace(text)
	}
	for name := range lines {
		if _, ok := facts[name]; !ok {
			t.Errorf("nothing was heard of %q: %+v", name, r)
		}
	}
	return facts
}

// oneLine asserts that a failure was told in one clear line with a hint.
func oneLine(t *testing.T, r result, code int, want ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit %d, want %d", r.code, code)
	}
	for _, w := range want {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("stderr lacks %q:\n%s", w, r.stderr)
		}
	}
	if strings.Contains(r.stderr, "goroutine ") || strings.Contains(r.stderr, "panic") {
		t.Errorf("a crash instead of a message:\n%s", r.stderr)
	}
}
