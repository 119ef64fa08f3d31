//go:build linux

package vmtest

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOrdinaryUser takes a short path through a cell as a user who is not root and has no capability.
func TestOrdinaryUser(t *testing.T) {
	h := newHost(t)
	h.uid = 12345
	// A copy of the cache that belongs to the user, as if that user had built the images.
	cache := filepath.Join(h.project, "cache")
	source := strings.TrimPrefix(h.cache, "XDG_CACHE_HOME=")
	h.cache = "XDG_CACHE_HOME=" + cache
	for _, line := range [][]string{
		{"mkdir", cache},
		{"cp", "-a", "--sparse=always", filepath.Join(source, "rootcell"), cache},
		{"chown", "-R", "12345:12345", h.project},
	} {
		if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", line, err, out)
		}
	}
	t.Cleanup(func() { _ = h.command(context.Background(), "remove").Run() })

	h.must(t, "init", "qemu")
	h.write(t, "instances/default/proxy/allowed-dns.txt", "ok.test.example\n")
	h.write(t, "instances/default/proxy/allowed-https.txt", "ok.test.example\n")
	h.must(t, "up")
	if out := h.must(t, "--", "curl", "-sS", "https://ok.test.example/user"); out != "ok.test.example GET /user\n" {
		t.Errorf("got %q", out)
	}
	if r := h.rootcell(t, "verify"); r.code != 0 {
		t.Errorf("verify: exit %d\n%s\n%s", r.code, r.stdout, r.stderr)
	}
	if out, err := exec.Command("pgrep", "-u", "12345", "-c", "qemu-system").Output(); err != nil || strings.TrimSpace(string(out)) != "2" {
		t.Errorf("machines of the user: %q, %v; want 2", out, err)
	}
	h.must(t, "remove")
}
