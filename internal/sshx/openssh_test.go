package sshx

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// cell is a firewall and an agent, both real sshd processes, and the
// configuration that OpenSSH's clients get for them.
type cell struct {
	dir, config string
}

func newCell(t *testing.T, change func(*ConfigOptions, machine)) cell {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "it's with space & (more)")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	private, key, err := NewKey("control")
	if err != nil {
		t.Fatal(err)
	}
	agent := startSSHD(t, key)
	firewall := startSSHD(t, key, "PermitOpen "+agent.addr.String(), "PermitTTY no", "ForceCommand echo firewall: $SSH_ORIGINAL_COMMAND")
	o := ConfigOptions{
		Instance:       "dev",
		IdentityFile:   filepath.Join(dir, "control key"),
		KnownHostsFile: filepath.Join(dir, "known hosts"),
		FirewallUser:   firewall.user,
		AgentUser:      agent.user,
		FirewallAddr:   firewall.addr,
		AgentAddr:      agent.addr,
	}
	hosts := KnownHosts("dev", firewall.hostKey, agent.hostKey)
	if change != nil {
		change(&o, firewall)
	}
	text, err := OpenSSHConfig(o)
	if err != nil {
		t.Fatal(err)
	}
	c := cell{dir, filepath.Join(dir, "config")}
	for path, content := range map[string]string{o.IdentityFile: string(private), o.KnownHostsFile: hosts, c.config: text} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c cell) run(t *testing.T, env []string, program string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("there is no %s on this machine", program)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestOpenSSHConnectsByBothAliases(t *testing.T) {
	c := newCell(t, nil)
	for alias, want := range map[string]string{
		"rootcell-agent": "agent\n", "rootcell-agent-dev": "agent\n",
		"rootcell-firewall": "firewall: echo agent\n", "rootcell-firewall-dev": "firewall: echo agent\n",
	} {
		t.Run(alias, func(t *testing.T) {
			if out, err := c.run(t, nil, "ssh", "-F", c.config, alias, "echo agent"); err != nil || out != want {
				t.Errorf("ssh: %v, %q", err, out)
			}
		})
	}
}

func TestOpenSSHWorksWhereTheConfigurationIsIncluded(t *testing.T) {
	c := newCell(t, nil)
	main := filepath.Join(c.dir, "main")
	if err := os.WriteFile(main, []byte("Include \""+c.config+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := c.run(t, nil, "ssh", "-F", main, "rootcell-agent-dev", "echo", "in"); err != nil || out != "in\n" {
		t.Errorf("ssh: %v, %q", err, out)
	}
}

func TestOpenSSHThroughACommand(t *testing.T) {
	program, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash on this machine")
	}
	c := newCell(t, func(o *ConfigOptions, firewall machine) {
		addr := firewall.addr
		o.FirewallAddr = netip.AddrPort{}
		o.FirewallCommand = []string{program, "-c", `exec 3<>"/dev/tcp/$0/$1"; cat <&3 & cat >&3; : 'a%b'`, addr.Addr().String(), strconv.Itoa(int(addr.Port()))}
	})
	if out, err := c.run(t, nil, "ssh", "-F", c.config, "rootcell-agent", "echo", "by command"); err != nil || out != "by command\n" {
		t.Errorf("ssh: %v, %q", err, out)
	}
}

func TestOpenSSHRefusesAnotherHostKey(t *testing.T) {
	c := newCell(t, nil)
	hosts := KnownHosts("dev", newKey(t).PublicKey(), newKey(t).PublicKey())
	if err := os.WriteFile(filepath.Join(c.dir, "known hosts"), []byte(hosts), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := c.run(t, nil, "ssh", "-F", c.config, "rootcell-firewall", "echo hi"); err == nil || !strings.Contains(out, "Host key verification failed") {
		t.Errorf("ssh: %v, %q", err, out)
	}
	if text, _ := os.ReadFile(filepath.Join(c.dir, "known hosts")); string(text) != hosts {
		t.Error("ssh changed the pinned keys")
	}
}

func TestConfigPinsAndForwardsNothing(t *testing.T) {
	c := newCell(t, nil)
	for _, alias := range []string{"rootcell-agent", "rootcell-firewall"} {
		out, err := c.run(t, nil, "ssh", "-G", "-F", c.config, alias)
		if err != nil {
			t.Fatalf("ssh -G: %v, %s", err, out)
		}
		for _, want := range []string{
			"stricthostkeychecking true", "forwardagent no", "forwardx11 no", "permitlocalcommand no", "updatehostkeys false",
			"identitiesonly yes", "identityagent none", "batchmode yes", "globalknownhostsfile /dev/null", "preferredauthentications publickey",
		} {
			if !strings.Contains("\n"+out, "\n"+want+"\n") {
				t.Errorf("%s: %q is not in force:\n%s", alias, want, out)
			}
		}
	}
}

func TestOtherProgramsWork(t *testing.T) {
	c := newCell(t, nil)
	host, agent := t.TempDir(), t.TempDir()
	fill(t, host, map[string]string{"w/a b": "one", "w/sub/c": "two"})
	t.Run("scp", func(t *testing.T) {
		if out, err := c.run(t, nil, "scp", "-F", c.config, "-r", host+"/w", "rootcell-agent:"+agent+"/scp"); err != nil || tree(t, agent)["scp/a b"] != "-rw-r--r-- one" {
			t.Errorf("scp: %v, %s", err, out)
		}
	})
	t.Run("rsync", func(t *testing.T) {
		if out, err := c.run(t, nil, "rsync", "-a", "-e", `ssh -F "`+c.config+`"`, host+"/w", "rootcell-agent:"+agent+"/rsync"); err != nil || tree(t, agent)["rsync/w/sub/c"] != "-rw-r--r-- two" {
			t.Errorf("rsync: %v, %s", err, out)
		}
	})
	t.Run("git", func(t *testing.T) {
		identity := []string{"GIT_SSH_COMMAND=" + Quote("ssh", "-F", c.config), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b"}
		for _, args := range [][]string{
			{"init", "-q", agent + "/repo"},
			{"-C", agent + "/repo", "commit", "-q", "--allow-empty", "-m", "first"},
			{"clone", "-q", "rootcell-agent:" + agent + "/repo", host + "/clone"},
			{"-C", host + "/clone", "log", "-1", "--format=%s"},
		} {
			if out, err := c.run(t, identity, "git", args...); err != nil {
				t.Fatalf("git %v: %v, %s", args, err, out)
			}
		}
	})
}

func TestConfigRefusesWhatOpenSSHCannotRead(t *testing.T) {
	good := ConfigOptions{
		Instance: "dev", IdentityFile: "/a", KnownHostsFile: "/b", FirewallUser: "f", AgentUser: "a",
		FirewallAddr: netip.MustParseAddrPort("127.0.0.1:22"), AgentAddr: netip.MustParseAddrPort("192.168.100.11:22"),
	}
	tests := map[string]func(*ConfigOptions){
		"a relative path":               func(o *ConfigOptions) { o.IdentityFile = "key" },
		"a line break in a path":        func(o *ConfigOptions) { o.KnownHostsFile = "/a\nProxyCommand x" },
		"a quote in a path":             func(o *ConfigOptions) { o.IdentityFile = `/a"b` },
		"a percent sign in a path":      func(o *ConfigOptions) { o.IdentityFile = "/100%" },
		"an expansion in a path":        func(o *ConfigOptions) { o.IdentityFile = "/${HOME}" },
		"a line break in a user":        func(o *ConfigOptions) { o.AgentUser = "a\nb" },
		"a space in an instance":        func(o *ConfigOptions) { o.Instance = "a *" },
		"a line break in a command":     func(o *ConfigOptions) { o.FirewallAddr, o.FirewallCommand = netip.AddrPort{}, []string{"a\nb"} },
		"neither an address nor a word": func(o *ConfigOptions) { o.FirewallAddr = netip.AddrPort{} },
	}
	if _, err := OpenSSHConfig(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			o := good
			spoil(&o)
			if text, err := OpenSSHConfig(o); err == nil {
				t.Errorf("no error for\n%s", text)
			}
		})
	}
}

func TestKeysSurviveTheirFormat(t *testing.T) {
	private, key, err := NewKey("a comment")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseKey(private)
	if err != nil {
		t.Fatal(err)
	}
	line := PublicLine(key.PublicKey(), "a comment")
	public, err := ParsePublicLine(line)
	if err != nil {
		t.Fatal(err)
	}
	if ssh.FingerprintSHA256(parsed.PublicKey()) != ssh.FingerprintSHA256(public) || !strings.HasPrefix(line, "ssh-ed25519 ") || !strings.HasSuffix(line, " a comment") {
		t.Errorf("the key changed: %q", line)
	}
	for _, bad := range []string{"", "ssh-ed25519 AAAA", "command=\"x\" " + line, line + "\n" + line} {
		if _, err := ParsePublicLine(bad); err == nil {
			t.Errorf("ParsePublicLine(%q) has no error", bad)
		}
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, private, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := (cell{}).run(t, nil, "ssh-keygen", "-y", "-f", path); err != nil || strings.TrimSpace(out) != line {
		t.Errorf("ssh-keygen reads %q, %v; want %q", out, err, line)
	}
}
