//go:build linux

package vmtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// TestCell takes one cell through its life. The subtests build upon each other: booting machines is what costs time.
func TestCell(t *testing.T) {
	h := newHost(t)
	h.must(t, "init", "qemu")
	instance := filepath.Join(h.project, "instances", "default")
	h.write(t, "instances/default/proxy/allowed-dns.txt", "ok.test.example\nscoped.test.example\n")
	h.write(t, "instances/default/proxy/allowed-https.txt", "ok.test.example\nscoped.test.example GET /public/\n")
	h.write(t, "instances/default/proxy/allowed-ssh.txt", "git.test.example\n")
	t.Cleanup(func() { _ = h.command(context.Background(), "remove").Run() })

	step := func(name string, f func(t *testing.T)) {
		if !t.Run(name, f) && name == "up" {
			t.FailNow()
		}
	}
	step("up", func(t *testing.T) {
		h.must(t, "up")
		list := h.must(t, "list")
		if strings.Count(list, "running") != 2 {
			t.Errorf("list:\n%s", list)
		}
	})
	step("a command's output, status and input", func(t *testing.T) {
		if out := h.must(t, "--", "echo", "hello world", "$HOME"); out != "hello world $HOME\n" {
			t.Errorf("got %q", out)
		}
		if r := h.rootcell(t, "run", "sh", "-c", "exit 7"); r.code != 7 {
			t.Errorf("exit %d, want the command's own 7", r.code)
		}
		if r := h.rootcellInput(t, "abc", "--", "wc", "-c"); strings.TrimSpace(r.stdout) != "3" {
			t.Errorf("stdin: %+v", r)
		}
		if r := h.rootcell(t, "--", "sh", "-c", "echo err >&2"); r.stdout != "" || !strings.Contains(r.stderr, "err") {
			t.Errorf("streams: %+v", r)
		}
	})
	step("a comfortable Debian in which root works", func(t *testing.T) {
		facts := h.facts(t, map[string]string{
			"root":    "id -u",
			"systemd": "systemctl is-system-running --wait | grep -E 'running|degraded' >/dev/null && echo up",
			"tools":   "for c in apt-get git curl python3 node gcc make ssh tmux rsync; do command -v $c >/dev/null || echo lacks $c; done",
			"python":  "python3 -c 'import ssl, venv' && echo ok",
			"sources": "grep -rhoE 'https?://[a-z.]+' /etc/apt/sources.list.d | cut -d: -f1 | sort -u",
			"memory":  "awk '/MemTotal/{print $2}' /proc/meminfo",
			"cpus":    "nproc",
			"disk":    "df --output=size -k / | tail -1",
			"cards":   "ls /sys/class/net | grep -v lo",
		})
		for name, want := range map[string]string{"root": "0", "systemd": "up", "tools": "", "python": "ok", "sources": "https", "cpus": "2", "cards": "cell"} {
			if facts[name] != want {
				t.Errorf("%s: %q, want %q", name, facts[name], want)
			}
		}
		if !between(facts["memory"], 850_000, 1_048_576) {
			t.Errorf("memory %s KiB, want what was configured (1 GiB)", facts["memory"])
		}
		if !between(facts["disk"], 5_000_000, 6_300_000) {
			t.Errorf("disk %s KiB, want what was configured (6 GiB)", facts["disk"])
		}
	})
	step("the way out", func(t *testing.T) {
		facts := h.facts(t, map[string]string{
			"curl":   "curl -sS https://ok.test.example/x",
			"python": `python3 -c 'import urllib.request as u; print(u.urlopen("https://ok.test.example/x").read().decode(), end="")'`,
			"node":   `node -e 'require("https").get("https://ok.test.example/x", r => r.pipe(process.stdout))'`,
			"git":    `git ls-remote https://ok.test.example/x 2>&1 | grep -q "not valid: is this a git repository" && echo ok.test.example GET /x`,
		})
		for tool, out := range facts {
			if out != "ok.test.example GET /x" {
				t.Errorf("%s does not get through, or does not trust the cell's CA: %q", tool, out)
			}
		}
		h.world.Forget()
		if r := h.sh(t, "curl -sS -i https://no.test.example/"); r.code == 0 && !strings.Contains(r.stdout, "403") {
			t.Errorf("denied: %+v", r)
		}
		if seen := h.world.Sightings("no.test.example"); len(seen) > 0 {
			t.Errorf("the far side saw %v", seen)
		}
	})
	step("SSH through CONNECT, and its denial", func(t *testing.T) {
		h.world.Forget()
		r := h.sh(t, "ssh -o BatchMode=yes -o ConnectTimeout=10 git@git.test.example true")
		if r.code == 0 || len(h.world.Sightings("ssh-client", "SSH-2.0-OpenSSH")) != 1 {
			t.Errorf("ssh did not reach the far side: %+v, %v", r, h.world.Sightings())
		}
		r = h.sh(t, "ssh -o BatchMode=yes git@no.test.example true")
		if !strings.Contains(r.stderr, "allowed-ssh.txt") || !strings.Contains(r.stderr, "rootcell allow") {
			t.Errorf("the denial does not explain itself: %+v", r)
		}
	})
	step("allow", func(t *testing.T) {
		out := h.must(t, "allow", "later.test.example")
		if !strings.Contains(out, "later.test.example") {
			t.Errorf("allow does not say what changed:\n%s", out)
		}
		if r := h.sh(t, "curl -sS https://later.test.example/x"); r.stdout != "later.test.example GET /x\n" {
			t.Errorf("after allow: %+v", r)
		}
		h.write(t, "instances/default/proxy/allowed-https.txt", "ok.test.example\n")
		if out := h.must(t, "allow"); !strings.Contains(out, "later.test.example") {
			t.Errorf("allow does not say what went:\n%s", out)
		}
		if r := h.sh(t, "curl -sS -o /dev/null -w '%{http_code}' https://later.test.example/x"); r.stdout != "403" {
			t.Errorf("after removal: %+v", r)
		}
		h.write(t, "instances/default/proxy/allowed-https.txt", "ok.test.example\nbroken ^GET (\n")
		oneLine(t, h.rootcell(t, "allow"), 2, "allowed-https.txt:2:")
		if r := h.sh(t, "curl -sS https://ok.test.example/still"); r.code != 0 {
			t.Errorf("the running policy did not stay: %+v", r)
		}
		h.write(t, "instances/default/proxy/allowed-https.txt", "ok.test.example\n")
		h.must(t, "allow")
	})
	step("log", func(t *testing.T) {
		if out := h.must(t, "log", "--denied", "--host", "no.test.example"); !strings.Contains(out, "no-rule") {
			t.Errorf("log:\n%s", out)
		}
	})
	step("root in the agent cannot get round the firewall", func(t *testing.T) { escape(t, h) })
	step("apt through the firewall", func(t *testing.T) { apt(t, h) })
	step("A22 the CA's key is nowhere in the agent", func(t *testing.T) {
		key, err := os.ReadFile(filepath.Join(instance, "pki", "ca.key"))
		if err != nil {
			t.Fatal(err)
		}
		secret := strings.Split(string(key), "\n")[1] // the first line of the key itself
		const places = "/etc /root /home /run /tmp /var/lib/rootcell /var/log /usr/local /opt /srv /sys/firmware/qemu_fw_cfg /proc/cmdline /proc/self/environ"
		facts := h.facts(t, map[string]string{
			"key":  "grep -rlsaF -e '" + secret + "' " + places,
			"cert": "grep -rlsaF -e \"$(sed -n 2p /usr/local/share/ca-certificates/rootcell.crt)\" " + places + " | grep -c .",
		})
		if facts["key"] != "" {
			t.Errorf("the key was found in %s", facts["key"])
		}
		if facts["cert"] == "0" || facts["cert"] == "" {
			t.Error("the search does not even find the certificate")
		}
	})
	step("verify", func(t *testing.T) {
		h.world.Forget()
		r := h.rootcell(t, "verify")
		if r.code != 0 {
			t.Errorf("verify: exit %d\n%s\n%s", r.code, r.stdout, r.stderr)
		}
		for _, s := range h.world.Sightings() {
			if s.Kind == "tcp" || s.Kind == "udp" || strings.Contains(s.Name, "canary") {
				t.Errorf("a probe reached the far side: %v", s)
			}
		}
	})
	step("ssh-config works with the real ssh", func(t *testing.T) {
		config := filepath.Join(h.project, "ssh.conf")
		h.write(t, "ssh.conf", h.must(t, "ssh-config"))
		out, err := h.ns.Command(t.Context(), "ssh", "-F", config, "rootcell-agent", "echo", "real").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "real\n") {
			t.Errorf("%v: %s", err, out)
		}
	})
	step("cp both ways", func(t *testing.T) {
		h.write(t, "tree/a/b.txt", "content\n")
		h.must(t, "cp", "-r", "tree", ":/tmp/tree")
		h.must(t, "cp", ":/tmp/tree/a/b.txt", "back.txt")
		if text, err := os.ReadFile(filepath.Join(h.project, "back.txt")); err != nil || string(text) != "content\n" {
			t.Errorf("%q, %v", text, err)
		}
	})
	step("forward", func(t *testing.T) { forward(t, h) })
	step("pubkey", func(t *testing.T) {
		if out := h.must(t, "pubkey"); !strings.HasPrefix(out, "ssh-rsa ") {
			t.Errorf("pubkey: %q", out)
		}
	})
	step("a second command waits, or does not", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		first := h.command(ctx, "provision")
		if err := first.Start(); err != nil {
			t.Fatal(err)
		}
		netlab.Await(t, 20*time.Second, "the first command to hold the lock", func() bool {
			return h.rootcell(t, "--no-wait", "provision").code == 1
		})
		oneLine(t, h.rootcell(t, "--no-wait", "stop"), 1, "rootcell provision")
		if err := first.Wait(); err != nil {
			t.Errorf("provision: %v", err)
		}
	})
	step("a killed agent machine comes back", func(t *testing.T) {
		kill(t, h, "agent")
		if r := h.rootcell(t, "--", "echo", "back"); r.code != 0 || r.stdout != "back\n" {
			t.Errorf("got %+v", r)
		}
	})
	step("a killed firewall machine comes back with the policy", func(t *testing.T) {
		kill(t, h, "firewall")
		if r := h.sh(t, "curl -sS https://ok.test.example/again"); r.stdout != "ok.test.example GET /again\n" {
			t.Errorf("got %+v", r)
		}
	})
	step("reset throws the disk away", func(t *testing.T) {
		h.must(t, "--", "touch", "/home/agent/gone")
		h.must(t, "reset")
		if r := h.rootcell(t, "--", "test", "-e", "/home/agent/gone"); r.code != 1 {
			t.Errorf("the file is still there: %+v", r)
		}
	})
	step("rootcell killed in the middle of up", func(t *testing.T) {
		h.must(t, "stop")
		for _, after := range []time.Duration{300 * time.Millisecond, 1500 * time.Millisecond, 4 * time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			cmd := h.command(ctx, "up")
			cmd.Cancel = func() error { return exec.Command("pkill", "-KILL", "-f", h.program+" up").Run() }
			_ = cmd.Run()
			cancel()
		}
		if r := h.rootcell(t, "--", "echo", "up"); r.stdout != "up\n" {
			t.Errorf("got %+v", r)
		}
	})
	step("stop, and what says so", func(t *testing.T) {
		h.must(t, "stop")
		if list := h.must(t, "list"); strings.Count(list, "stopped") != 2 {
			t.Errorf("list:\n%s", list)
		}
		oneLine(t, h.rootcell(t, "allow"), 1, "rootcell up")
		h.must(t, "stop")
	})
	step("remove keeps what is the user's", func(t *testing.T) {
		h.must(t, "remove")
		for _, kept := range []string{"rootcell.toml", "proxy/allowed-https.txt", "pki", "state.json"} {
			if _, err := os.Stat(filepath.Join(instance, kept)); err != nil {
				t.Errorf("%s is gone: %v", kept, err)
			}
		}
		if out, _ := exec.Command("pgrep", "-fa", "qemu-system.*"+h.project).Output(); len(out) > 0 {
			t.Errorf("machines are still running:\n%s", out)
		}
	})
}

func between(text string, low, high int) bool {
	var n int
	_, err := fmt.Sscan(text, &n)
	return err == nil && n >= low && n <= high
}

// kill ends a machine's process as the host's kernel would when memory runs out.
func kill(t *testing.T, h *host, role string) {
	t.Helper()
	pids, err := filepath.Glob(filepath.Join(h.project, "instances/default/v/qemu", role+"*", "*pid*"))
	if more, _ := filepath.Glob(filepath.Join(h.project, "instances/default/v/qemu", role+"*pid*")); len(more) > 0 {
		pids = append(pids, more...)
	}
	if err != nil || len(pids) == 0 {
		t.Fatalf("no pid file of the %s: %v", role, err)
	}
	text, err := os.ReadFile(pids[0])
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("kill", "-9", strings.Fields(string(text))[0]).CombinedOutput(); err != nil {
		t.Fatalf("kill: %v: %s", err, out)
	}
}
