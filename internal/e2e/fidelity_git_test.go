//go:build linux

package e2e

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// gitRun runs git outside the laboratory, for setting things up and looking at the result.
func gitRun(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@a.example",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@a.example", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// largeRepository makes a bare repository whose one commit holds size random bytes: they do not compress.
func largeRepository(t *testing.T, dir string, size int) (head string) {
	t.Helper()
	work := filepath.Join(dir, "work")
	if err := os.MkdirAll(work, 0o755); err != nil {
		t.Fatal(err)
	}
	content := make([]byte, size)
	_, _ = rand.Read(content)
	if err := os.WriteFile(filepath.Join(work, "blob"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	gitRun(t, work, "init", "-q", "-b", "main")
	gitRun(t, work, "add", ".")
	gitRun(t, work, "commit", "-q", "-m", "first")
	gitRun(t, dir, "clone", "-q", "--bare", "work", "repo.git")
	gitRun(t, filepath.Join(dir, "repo.git"), "config", "http.receivepack", "true")
	return gitRun(t, work, "rev-parse", "HEAD")
}

// gitBackend is `git http-backend` behind net/http's CGI, which wants to know a body's length.
func gitBackend(t *testing.T, projects string) http.Handler {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("git is not installed")
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + projects, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=lab", "HOME=" + projects, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		spool, err := os.CreateTemp(projects, "body-")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer func() { _ = spool.Close(); _ = os.Remove(spool.Name()) }()
		if r.ContentLength, err = io.Copy(spool, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = spool.Seek(0, io.SeekStart)
		r.Body, r.TransferEncoding = io.NopCloser(spool), nil
		backend.ServeHTTP(w, r)
	})
}

const largePack = 32 << 20

// pushSize is how much a push carries: more than git buffers, except where the client itself cannot do that. libcurl
// 7.88.1 (Debian 12) corrupts HTTP/2 uploads when the receiver is slow: under load 13 of 59 pushes of 8 MiB arrived broken
// through the proxy, and 0 of 58 by the same proxy in the same runs with libcurl 8.14 (2026-11-22).
func pushSize(t *testing.T, version string) int {
	t.Helper()
	out, err := exec.Command("curl", "--version").Output()
	if err == nil && version == "HTTP/2" && strings.Contains(string(out), "libcurl/7.88.") {
		t.Log("a small push: this libcurl corrupts large uploads over HTTP/2")
		return 32 << 10
	}
	return 8 << 20
}

// gitRoundTrip clones, pushes that many bytes, and fetches them into another clone.
func (l *lab) gitRoundTrip(t *testing.T, url, bare, head string, size int, options ...string) {
	t.Helper()
	dir, err := os.MkdirTemp(l.Dir, "clones-")
	if err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(l.do(t, "git", append(append([]string{"-c", "user.name=a", "-c", "user.email=a@a.example"}, options...), args...)...))
	}
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	git("clone", "-q", url, one)
	git("clone", "-q", "--depth", "1", url, two)
	if got := git("-C", one, "rev-parse", "HEAD"); got != head {
		t.Errorf("cloned %s, want %s", got, head)
	}
	content := make([]byte, size)
	_, _ = rand.Read(content)
	if err := os.WriteFile(filepath.Join(one, "more"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	git("-C", one, "add", ".")
	git("-C", one, "commit", "-q", "-m", "second")
	git("-C", one, "push", "-q", "origin", "HEAD:main")
	pushed := git("-C", one, "rev-parse", "HEAD")
	if got := gitRun(t, bare, "rev-parse", "main"); got != pushed {
		t.Errorf("the server has %s, pushed %s", got, pushed)
	}
	git("-C", two, "fetch", "-q", "origin")
	if got := git("-C", two, "rev-parse", "origin/main"); got != pushed {
		t.Errorf("fetched %s, want %s", got, pushed)
	}
	git("-C", one, "fsck", "--strict")
}

func TestFidelityGit(t *testing.T) {
	l := newLab(t, netlab.Options{})
	projects := filepath.Join(l.Dir, "projects")
	head := largeRepository(t, projects, largePack)
	bare := filepath.Join(projects, "repo.git")
	const host = "git.test.example"
	l.world.Host(t, host, gitBackend(t, projects))
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run("clone, push and fetch over "+version, func(t *testing.T) {
			gitRun(t, bare, "update-ref", "refs/heads/main", head)
			before := l.memory(t, "VmHWM")
			l.gitRoundTrip(t, "https://"+host+"/repo.git", bare, head, pushSize(t, version), "-c", "http.version="+version)
			t.Logf("peak resident memory %d KiB, before %d KiB", l.memory(t, "VmHWM"), before)
		})
	}
}

func TestFidelitySSH(t *testing.T) {
	l := newLab(t, netlab.Options{})
	for _, name := range []string{"sshd", "ssh", "ssh-keygen", "socat"} {
		l.tool(t, name)
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	projects := filepath.Join(l.Dir, "projects")
	head := largeRepository(t, projects, largePack)
	for _, key := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(l.Dir, key)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	const host = "sshd.test.example"
	l.origin(t, host, 22, func(local, _ string) []string {
		conf := filepath.Join(l.Dir, "sshd_config")
		text := fmt.Sprintf("ListenAddress 0.0.0.0:%s\nHostKey %[2]s/host\nAuthorizedKeysFile %[2]s/user.pub\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\nUsePAM no\nPidFile none\n", local, l.Dir)
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return []string{"sshd", "-D", "-e", "-f", conf}
	})
	public, err := os.ReadFile(filepath.Join(l.Dir, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	known := filepath.Join(l.Dir, "known_hosts")
	if err := os.WriteFile(known, []byte(host+" "+string(public)), 0o644); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(l.Dir, "ssh_config")
	text := fmt.Sprintf("Host *\n  ProxyCommand socat - PROXY:%s:%%h:%%p,proxyport=8080\n  IdentityFile %s/user\n  UserKnownHostsFile %s\n  User root\n", netlab.FirewallAddr, l.Dir, known)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Run("a command with its status and both streams", func(t *testing.T) {
		r := l.try(t, "ssh", "-F", config, host, "echo out; echo err >&2; exit 7")
		if r.code != 7 || r.stdout != "out\n" || !strings.Contains(r.stderr, "err\n") {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("64 MiB through cat and back, each half closed in turn", func(t *testing.T) {
		before := l.memory(t, "VmRSS")
		r := l.shell(t, "head -c 67108864 /dev/zero | ssh -F "+config+" "+host+" cat | sha256sum")
		const zeroes64MiB = "3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351"
		if !strings.HasPrefix(r.stdout, zeroes64MiB) {
			t.Errorf("got %+v", r)
		}
		if grown := l.memory(t, "VmHWM") - before; grown > 32<<10 {
			t.Errorf("the daemon grew by %d KiB", grown)
		}
	})
	t.Run("git clone, push and fetch", func(t *testing.T) {
		l.gitRoundTrip(t, "ssh://"+host+filepath.Join(projects, "repo.git"), filepath.Join(projects, "repo.git"), head, pushSize(t, "SSH"),
			"-c", "core.sshCommand=ssh -F "+config)
	})
}
