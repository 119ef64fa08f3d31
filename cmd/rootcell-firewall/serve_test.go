package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/control"
)

func (c *cell) query(name string) *dns.Msg {
	c.t.Helper()
	answer, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion(name+".", dns.TypeA), c.dnsAddr)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer
}

func TestServeDecidesAllThreeKinds(t *testing.T) {
	c := start(t, "ok.test\n", "ok.test\npath.test GET /public/\nspecial.test\n", "ok.test\nspecial.test\n")

	if answer := c.query("ok.test"); answer.Rcode != dns.RcodeSuccess || len(answer.Answer) != 1 {
		t.Errorf("DNS of an allowed name: %v", answer)
	}
	if answer := c.query("evil.test"); answer.Rcode != dns.RcodeRefused {
		t.Errorf("DNS of another name: %v", answer)
	}
	for _, test := range []struct {
		url    string
		status int
		deny   string
		body   string
	}{
		{"https://ok.test/a?b", 200, "", "hello from ok.test"},
		{"https://path.test/public/x", 200, "", "hello from path.test"},
		{"https://path.test/private", 403, "path-rule", "rootcell allow path.test --path"},
		{"https://evil.test/", 403, "no-rule", "rootcell allow evil.test"},
		{"https://special.test/", 403, "special-address", ""},
	} {
		if status, deny, body := c.fetch(test.url); status != test.status || deny != test.deny || !strings.Contains(body, test.body) {
			t.Errorf("%s: %d %q %q, want %d %q and %q", test.url, status, deny, body, test.status, test.deny, test.body)
		}
	}
	if got := fmt.Sprint(c.seen()); got != "[HTTP/2.0 GET ok.test/a?b HTTP/2.0 GET path.test/public/x]" {
		t.Errorf("the origin saw %s", got)
	}

	client, err := c.dialSSH("ok.test")
	if err != nil {
		t.Fatal(err)
	}
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	session.Stdin = strings.NewReader("echo")
	if out, err := session.Output("x"); err != nil || string(out) != "hello over SSH\necho" {
		t.Errorf("SSH: %q, %v", out, err)
	}
	client.Close()
	for host, reason := range map[string]string{"evil.test": "no-rule", "special.test": "special-address"} {
		if _, err := c.dialSSH(host); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("SSH to %s: %v, want the reason %s", host, err, reason)
		}
	}
	if c.sessions != 1 {
		t.Errorf("the SSH server saw %d connections, want 1", c.sessions)
	}
	for _, query := range c.dns.Queries() {
		if query.Name == "evil.test" {
			t.Error("the name of a denied host reached the resolver")
		}
	}

	if e := c.find("dns", "evil.test"); e.Verdict != "deny" || e.Reason != "no-rule" || e.Instance != "default" {
		t.Errorf("audited %+v", e)
	}
	if e := c.find("https", "path.test"); e.Verdict != "allow" || e.Rule != "allowed-https.txt:2" || e.Upstream != farAddr+":443" {
		t.Errorf("audited %+v", e)
	}
	if e := c.find("ssh", "ok.test"); e.Verdict != "allow" || e.Upstream != farAddr+":22" || e.BytesUp == 0 || e.BytesDown == 0 {
		t.Errorf("audited %+v", e)
	}
}

func TestReloadWhileServing(t *testing.T) {
	c := start(t, "", "", "ok.test\n")
	if _, deny, _ := c.fetch("https://ok.test/"); deny != "no-rule" {
		t.Errorf("denied with %q", deny)
	}
	client, err := c.dialSSH("ok.test")
	if err != nil {
		t.Fatal(err)
	}

	c.write("policy/allowed-https.txt", "ok.test\n")
	c.write("policy/allowed-ssh.txt", "other.test\n")
	// Asked from here: how long another process takes to start is not the daemon's.
	began := time.Now()
	result, err := control.Dial(filepath.Join(c.dir, "control.sock")).Reload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = client.Wait()
	if took := time.Since(began); took > time.Second {
		t.Errorf("the tunnel was closed after %s, want within a second", took)
	}
	if result.Revoked != 1 || result.Generation != 2 || len(result.Changed) != 2 {
		t.Errorf("result %+v", result)
	}
	if status, deny, _ := c.fetch("https://ok.test/"); status != 200 {
		t.Errorf("answered %d %q", status, deny)
	}

	c.write("policy/allowed-https.txt", "ok.test\nbad_name.test\n")
	out, code := c.ctl("reload")
	if code != 2 || !strings.Contains(out, `"line":2`) {
		t.Errorf("reload of a bad list: %d\n%s", code, out)
	}
	if status, _, _ := c.fetch("https://ok.test/"); status != 200 {
		t.Errorf("answered %d after a bad list", status)
	}

	out, code = c.ctl("grant", "--kind", "https", "--for", "1h", "granted.test")
	if code != 0 || !strings.Contains(out, "granted.test") {
		t.Errorf("grant: %d\n%s", code, out)
	}
	if status, deny, _ := c.fetch("https://granted.test/"); status != 200 {
		t.Errorf("answered %d %q to a granted host", status, deny)
	}
	if out, _ := c.ctl("status"); !strings.Contains(out, `"line":"granted.test"`) || !strings.Contains(out, "bad_name.test") {
		t.Errorf("status: %s", out)
	}
	if _, code := c.ctl("revoke", "--kind", "https", "granted.test"); code != 0 {
		t.Errorf("revoke ended with %d", code)
	}
	if _, deny, _ := c.fetch("https://granted.test/"); deny != "no-rule" {
		t.Errorf("denied with %q after the revocation", deny)
	}
	for _, args := range [][]string{
		{"grant", "--kind", "icmp", "--for", "1h", "a.test"}, {"grant", "--kind", "https", "--for", "1h", "bad_name.test"},
		{"grant", "--kind", "https", "--for", "0s", "a.test"}, {"revoke"}, {"revoke", "--all", "--kind", "dns", "a.test"},
		{"revoke", "--kind", "https", "never.test"}, {"log", "--since", "yesterday"}, {"nonsense"},
	} {
		if _, code := c.ctl(args...); code != 2 {
			t.Errorf("ctl %s ended with %d, want 2", strings.Join(args, " "), code)
		}
	}
}

func TestHangupReloads(t *testing.T) {
	c := start(t, "", "", "")
	follow := c.self("main", "ctl", "--config", filepath.Join(c.dir, "firewall.toml"), "log", "-f", "--denied")
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	c.write("policy/allowed-dns.txt", "ok.test\n")
	if err := c.daemon.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for c.query("ok.test").Rcode != dns.RcodeSuccess {
		<-ticker.C
	}
	c.query("late.evil.test")
	for lines := bufio.NewScanner(out); ; {
		if !lines.Scan() {
			t.Fatal("the followed log ended")
		}
		if strings.Contains(lines.Text(), `"late.evil.test"`) {
			break
		}
	}
	if err := follow.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("the follower left with %v", err)
	}
}

func TestASecondDaemonIsRefusedAndAKilledOneReplaced(t *testing.T) {
	c := start(t, "ok.test\n", "", "")
	second := c.self("main", "serve", "--config", filepath.Join(c.dir, "firewall.toml"))
	out, err := second.CombinedOutput()
	if err == nil || second.ProcessState.ExitCode() != 1 {
		t.Errorf("the second daemon left with %v\n%s", err, out)
	}
	if err := c.daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.daemon.Wait()
	c.daemon = nil
	if _, code := c.ctl("status"); code != 1 {
		t.Errorf("ctl without a daemon ended with %d, want 1", code)
	}
	c.run()
	if answer := c.query("ok.test"); answer.Rcode != dns.RcodeSuccess {
		t.Errorf("after a restart: %v", answer)
	}
}

func TestMissingListsDenyAndShow(t *testing.T) {
	c := start(t, "ok.test\n", "ok.test\n", "")
	c.stop()
	if err := os.Remove(filepath.Join(c.dir, "policy/allowed-https.txt")); err != nil {
		t.Fatal(err)
	}
	c.run()
	if _, deny, body := c.fetch("https://ok.test/"); deny != "bad-policy" || !strings.Contains(body, "policy check") {
		t.Errorf("denied with %q: %s", deny, body)
	}
	status, err := control.Dial(filepath.Join(c.dir, "control.sock")).Status(t.Context())
	if err != nil || status.Policy["https"].Error == "" || status.Policy["dns"].Error != "" {
		t.Errorf("status %+v, %v", status.Policy, err)
	}
	if len(c.seen()) != 0 {
		t.Errorf("the origin saw %v", c.seen())
	}
}

func TestTheControlSocketIsClosedToOthers(t *testing.T) {
	c := start(t, "", "", "")
	info, err := os.Stat(filepath.Join(c.dir, "control.sock"))
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v, want 0660", info.Mode(), err)
	}
}

func TestCheckAndRuleset(t *testing.T) {
	c := start(t, "ok.test\n", "ok.test\n", "")
	config := filepath.Join(c.dir, "firewall.toml")
	if out, err := c.self("main", "check", "--config", config).CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("check: %v\n%s", err, out)
	}
	if out, err := c.self("main", "ruleset", "--config", config).Output(); err != nil || !strings.Contains(string(out), "define agent_addr = 127.0.0.2\n") {
		t.Errorf("ruleset: %v\n%s", err, out)
	}
	c.write("policy/allowed-https.txt", "ok.test\nbad_name.test\n")
	check := c.self("main", "check", "--config", config)
	out, err := check.Output()
	if err == nil || check.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "allowed-https.txt:2:1: ") {
		t.Errorf("check of a bad list: %v\n%s", err, out)
	}
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	c.write("bad.toml", strings.Replace(string(text), "[policy]", "[policy]\ntypo = 1", 1))
	for _, verb := range []string{"check", "ruleset", "serve"} {
		cmd := c.self("main", verb, "--config", filepath.Join(c.dir, "bad.toml"))
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(out), "bad.toml:11:1: policy.typo: unknown key") {
			t.Errorf("%s of a bad configuration: %d\n%s", verb, code, out)
		}
	}
}

func TestRealClients(t *testing.T) {
	for _, tool := range []string{"curl", "ssh", "dig"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	c := start(t, "ok.test\n", "ok.test\n", "ok.test\n")
	dnsHost, dnsPort, _ := strings.Cut(c.dnsAddr, ":")
	run := func(name string, args ...string) (string, int) {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), role+"=connect", "no_proxy=*")
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, _ := run("dig", "+short", "@"+dnsHost, "-p", dnsPort, "ok.test"); strings.TrimSpace(out) != farAddr {
		t.Errorf("dig of an allowed name printed %q", out)
	}
	if out, _ := run("dig", "@"+dnsHost, "-p", dnsPort, "evil.test"); !strings.Contains(out, "REFUSED") || !strings.Contains(out, "allowed-dns.txt") {
		t.Errorf("dig of another name printed %s", out)
	}
	curl := func(url string, more ...string) (string, int) {
		return run("curl", append([]string{"-sS", "--max-time", "20", "--cacert", filepath.Join(c.dir, "ca.pem"), "--connect-to", "::" + c.https, url}, more...)...)
	}
	for _, version := range []string{"--http1.1", "--http2"} {
		if out, code := curl("https://ok.test/", version); code != 0 || out != "hello from ok.test\n" {
			t.Errorf("curl %s: %d %q", version, code, out)
		}
	}
	if out, code := curl("https://evil.test/", "--fail"); code != 22 || !strings.Contains(out, "403") {
		t.Errorf("curl of a denied host: %d %q", code, out)
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(c.knownHost())
	c.write("known_hosts", "ok.test "+key+"\nevil.test "+key+"\n")
	ssh := func(host string) (string, int) {
		return run("ssh", "-F", "none", "-o", "ProxyCommand="+executable+" "+c.connect+" %h:%p", "-o", "BatchMode=yes",
			"-o", "UserKnownHostsFile="+filepath.Join(c.dir, "known_hosts"), "-n", "git@"+host, "x")
	}
	if out, code := ssh("ok.test"); code != 0 || !strings.Contains(out, "hello over SSH") {
		t.Errorf("ssh: %d %q", code, out)
	}
	if out, code := ssh("evil.test"); code != 255 || !strings.Contains(out, "rootcell allow --ssh evil.test") {
		t.Errorf("ssh to a denied host: %d %q", code, out)
	}
	if c.sessions != 1 {
		t.Errorf("the SSH server saw %d connections, want 1", c.sessions)
	}
}

func TestUsage(t *testing.T) {
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"nonsense"}, &out, &errs); code != 2 {
		t.Errorf("an unknown command ended with %d, want 2", code)
	}
	if code := run(t.Context(), []string{"serve", "--config", filepath.Join(t.TempDir(), "none.toml")}, io.Discard, &errs); code != 2 ||
		!strings.Contains(errs.String(), "none.toml:1:1: ") {
		t.Errorf("a missing configuration ended with %d\n%s", code, errs.String())
	}
}
