//go:build linux

package netlab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/ca"
)

// daemonUID is the unprivileged user that the daemon runs as; its number need not be in the password file.
const daemonUID = 900

// Options configure a daemon. The zero value denies everything.
type Options struct {
	DNS, HTTPS, SSH string // texts of the three allowlists
	DenyStyle       string // explain when empty
	AllowPrivate    []string
	MaxAuditBytes   int64    // 64 MiB when zero
	Extra           string   // further TOML
	Env             []string // added to the daemon's environment
	Descriptors     int      // limit of open files; that of the test when zero
}

// Daemon is the real rootcell-firewall, running unprivileged in the lab's firewall namespace behind the real ruleset.
type Daemon struct {
	lab    *Lab
	binary string
	config string
	env    []string
	// CA is the instance CA's certificate (PEM), CAFile its path: what the agent trusts.
	CA     []byte
	CAFile string

	descriptors int
	cmd         *exec.Cmd
	stderr      *syncBuffer
}

// syncBuffer collects what the daemon says while the test may read it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// buildOnce builds the firewall binary once per test process.
var buildOnce = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("ROOTCELL_FIREWALL"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "rootcell-build-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "rootcell-firewall")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "github.com/rootcell-ai/rootcell/cmd/rootcell-firewall")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building rootcell-firewall: %w: %s", err, out)
	}
	return path, nil
})

// StartDaemon loads the ruleset and starts the daemon; it returns when the control socket answers.
func StartDaemon(tb testing.TB, lab *Lab, world *World, o Options) *Daemon {
	tb.Helper()
	binary, err := buildOnce()
	if err != nil {
		tb.Fatal(err)
	}
	d := &Daemon{lab: lab, binary: binary, config: filepath.Join(lab.Dir, "firewall.toml"), descriptors: o.Descriptors, env: o.Env}
	certPEM, keyPEM, err := ca.Create("lab")
	if err != nil {
		tb.Fatal(err)
	}
	d.CA = certPEM
	d.CAFile = d.write(tb, "ca.pem", string(certPEM))
	roots := d.write(tb, "roots.pem", world.Roots)
	d.write(tb, "ca.key", string(keyPEM))
	for _, dir := range []string{"policy", "log", "run"} {
		if err := os.MkdirAll(filepath.Join(lab.Dir, dir), 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	for _, owned := range []string{"ca.key", "log", "run"} {
		if err := os.Chown(filepath.Join(lab.Dir, owned), daemonUID, daemonUID); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(lab.Dir, "ca.key"), 0o600); err != nil {
		tb.Fatal(err)
	}
	d.WritePolicy(tb, o.DNS, o.HTTPS, o.SSH)
	if o.DenyStyle == "" {
		o.DenyStyle = "explain"
	}
	if o.MaxAuditBytes == 0 {
		o.MaxAuditBytes = 64 << 20
	}
	quoted := make([]string, len(o.AllowPrivate))
	for i, p := range o.AllowPrivate {
		quoted[i] = fmt.Sprintf("%q", p)
	}
	d.write(tb, "firewall.toml", fmt.Sprintf(`schema = 1
instance = "default"
[listen]
interface = %q
dns = "%[2]s:53"
https = "%[2]s:8081"
connect = "%[2]s:8080"
control = "%[3]s/run/control.sock"
agent = %[4]q
[policy]
dir = "%[3]s/policy"
deny_style = %[5]q
allow_private = [%[6]s]
[ca]
cert = "%[3]s/ca.pem"
key = "%[3]s/ca.key"
[upstream]
resolvers = ["%[7]s:53"]
roots = %[8]q
[audit]
path = "%[3]s/log/audit.jsonl"
max_bytes = %[9]d
%[10]s
`, PrivateIface, FirewallAddr, lab.Dir, AgentAddr, o.DenyStyle, strings.Join(quoted, ", "), InternetAddr, roots, o.MaxAuditBytes, o.Extra))
	d.LoadRuleset(tb)
	d.Start(tb)
	tb.Cleanup(func() {
		d.Kill()
		if tb.Failed() {
			tb.Logf("daemon said:\n%s", d.stderr)
		}
	})
	return d
}

func (d *Daemon) write(tb testing.TB, name, text string) string {
	tb.Helper()
	path := filepath.Join(d.lab.Dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
	return path
}

// WritePolicy replaces the three allowlists without telling the daemon.
func (d *Daemon) WritePolicy(tb testing.TB, dns, https, ssh string) {
	tb.Helper()
	d.write(tb, "policy/allowed-dns.txt", dns)
	d.write(tb, "policy/allowed-https.txt", https)
	d.write(tb, "policy/allowed-ssh.txt", ssh)
}

// LoadRuleset loads what `rootcell-firewall ruleset` prints into the firewall namespace's kernel.
func (d *Daemon) LoadRuleset(tb testing.TB) {
	tb.Helper()
	rules, err := exec.Command(d.binary, "ruleset", "--config", d.config).Output()
	if err != nil {
		tb.Fatalf("printing the ruleset: %v: %s", err, stderrOf(err))
	}
	cmd := d.lab.Firewall.Command(context.Background(), "nft", "-f", "-")
	cmd.Stdin = bytes.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("loading the ruleset: %v: %s\n%s", err, out, rules)
	}
}

// Start runs the daemon and waits until it answers.
func (d *Daemon) Start(tb testing.TB) {
	tb.Helper()
	d.Launch(tb)
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := d.ctl("status"); err == nil {
			return
		} else if time.Now().After(deadline) {
			tb.Fatalf("the daemon does not answer: %v: %s\n%s", err, stderrOf(err), d.stderr)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// Launch runs the daemon and does not wait for it.
func (d *Daemon) Launch(tb testing.TB) {
	tb.Helper()
	d.stderr = &syncBuffer{}
	uid := fmt.Sprint(daemonUID)
	words := []string{"setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--no-new-privs",
		"--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service", "--bounding-set", "-all,+net_bind_service",
		d.binary, "serve", "--config", d.config}
	if d.descriptors > 0 {
		words = slices.Concat([]string{"prlimit", fmt.Sprintf("--nofile=%[1]d:%[1]d", d.descriptors)}, words)
	}
	d.cmd = d.lab.Firewall.Command(context.Background(), words[0], words[1:]...)
	d.cmd.Env = append(d.cmd.Env, d.env...)
	d.cmd.Stdout, d.cmd.Stderr = d.stderr, d.stderr
	if err := d.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
}

// Kill ends the daemon at once, as a crash would.
func (d *Daemon) Kill() {
	if d.cmd != nil && d.cmd.Process != nil {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		d.cmd = nil
	}
}

// PID is the daemon's process number.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Ctl runs a control verb and decodes its JSON into v, which may be nil.
func (d *Daemon) Ctl(tb testing.TB, v any, args ...string) {
	tb.Helper()
	out, err := d.ctl(args...)
	if err != nil {
		tb.Fatalf("ctl %s: %v: %s", strings.Join(args, " "), err, stderrOf(err))
	}
	if v != nil {
		if err := json.Unmarshal(out, v); err != nil {
			tb.Fatalf("ctl %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
}

// CtlRefused runs a control verb that must say no.
func (d *Daemon) CtlRefused(tb testing.TB, args ...string) {
	tb.Helper()
	if out, err := d.ctl(args...); err == nil {
		tb.Fatalf("ctl %s succeeded: %s", strings.Join(args, " "), out)
	}
}

func (d *Daemon) ctl(args ...string) ([]byte, error) {
	return exec.Command(d.binary, append([]string{"ctl", "--config", d.config}, args...)...).Output()
}

// AuditLog returns the audit file's decided events so far, one map a line.
func (d *Daemon) AuditLog(tb testing.TB) []map[string]any {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(d.lab.Dir, "log/audit.jsonl"))
	if err != nil {
		tb.Fatal(err)
	}
	var events []map[string]any
	for line := range bytes.Lines(text) {
		var e map[string]any
		if err := json.Unmarshal(line, &e); err != nil {
			tb.Fatalf("audit line %q: %v", line, err)
		}
		events = append(events, e)
	}
	return events
}

func stderrOf(err error) []byte {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.Stderr
	}
	return nil
}

// AwaitAudit waits for an event that has all the given field values and returns it.
func (d *Daemon) AwaitAudit(tb testing.TB, fields map[string]any) map[string]any {
	tb.Helper()
	var found map[string]any
	Await(tb, 5*time.Second, fmt.Sprintf("audit event %v", fields), func() bool {
	next:
		for _, e := range d.AuditLog(tb) {
			for k, v := range fields {
				if fmt.Sprint(e[k]) != fmt.Sprint(v) {
					continue next
				}
			}
			found = e
			return true
		}
		return false
	})
	return found
}

// Await polls until the condition holds and fails the test when it does not in time.
func Await(tb testing.TB, limit time.Duration, what string, condition func() bool) {
	tb.Helper()
	deadline := time.Now().Add(limit)
	for !condition() {
		if time.Now().After(deadline) {
			tb.Fatalf("waited %s in vain for %s", limit, what)
		}
		<-time.After(10 * time.Millisecond)
	}
}
