// Package celltest plays the machines of cells in memory, for tests of what
// happens on the host: a firewall that speaks SSH and knows the host's verbs,
// and behind it an agent that runs commands as processes of the test, in a home
// directory of its own. Commands of an agent see stand-ins for what only a real
// guest has (sudo, systemd).
package celltest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/cell"
	"github.com/rootcell-ai/rootcell/internal/control"
	"github.com/rootcell-ai/rootcell/internal/guestcfg"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
	"github.com/rootcell-ai/rootcell/internal/probe"
	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/provider/fake"
)

// World is a host's worth of cells. Make one with New.
type World struct {
	Provider *fake.Provider
	Home     string // of every agent

	tools string // directory of the stand-ins

	mu     sync.Mutex // protects all the following
	cells  map[string]*firewall
	events []audit.Event
}

// firewall is the daemon of one cell since the firewall's start.
type firewall struct {
	boot       string
	files      map[string]string
	generation uint64
	grants     []control.Grant
	pushes     int
	probes     uint64
	started    time.Time
}

// New returns a world whose files are below dir.
func New(dir string) (*World, error) {
	w := &World{Home: filepath.Join(dir, "agent-home"), tools: filepath.Join(dir, "agent-bin"), cells: map[string]*firewall{}}
	w.Provider = fake.New(fake.Options{Serve: w.serve})
	for path, text := range map[string]string{
		"sudo":        sudo,
		"systemctl":   "#!/bin/sh\nexit 3\n",
		"systemd-run": systemdRun,
	} {
		path = filepath.Join(w.tools, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(w.Home, 0o700); err != nil {
		return nil, err
	}
	return w, nil
}

// sudo runs everything as it is but the probes, whose results are a file of the
// agent's home.
const sudo = `#!/bin/sh
[ "$1" != -n ] || shift
case "$1 $2" in
"/usr/local/bin/rootcell-guest probe")
	cat >~/probe-request
	cat ~/probe-results
	exit 0 ;;
esac
exec "$@"
`

// systemdRun makes a key at once and installs nothing.
const systemdRun = `#!/bin/sh
case "$*" in
*rootcell-ssh-key*)
	echo private >~/.ssh/id_rsa
	echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl agent' >~/.ssh/id_rsa.pub ;;
esac
`

// Images stands for the builder of images. Its files do not exist: nothing
// boots.
type Images struct{}

// Ensure implements cell.Images.
func (Images) Ensure(context.Context, string) (cell.ImageSet, error) {
	return cell.ImageSet{Kernel: "/images/kernel", FirewallInitrd: "/images/firewall", AgentInitrd: "/images/agent", AgentRoot: "/images/root"}, nil
}

// Pushes says how often allowlists were pushed to the firewall of an instance.
func (w *World) Pushes(instance string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.cells[instance]; f != nil {
		return f.pushes
	}
	return 0
}

// Lists are the lists in force in the firewall of an instance.
func (w *World) Lists(instance string) map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.cells[instance]; f != nil {
		return maps.Clone(f.files)
	}
	return nil
}

// Record adds a decision to the log of every firewall.
func (w *World) Record(e audit.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// serve plays the firewall's SSH server.
func (w *World) serve(id provider.CellID, conn net.Conn) {
	defer conn.Close()
	spec, ok := w.Provider.Applied(id)
	if !ok {
		return
	}
	fw, err := guestcfg.Decode(spec.Firewall.Config)
	if err != nil {
		return
	}
	agent, err := guestcfg.Decode(spec.Agent.Config)
	if err != nil {
		return
	}
	w.boot(id, fw)
	server := &server{
		user: "rootcell", hostKey: fw.SSH.HostKey.Reveal(), authorized: fw.SSH.AuthorizedKeys,
		run: func(c command) int { return w.verb(id.Instance, c) },
		forward: func(host string, port uint32, conn net.Conn) bool {
			if host != fw.Network.PeerAddress || port != 22 {
				return false
			}
			go w.serveAgent(agent, conn)
			return true
		},
	}
	// Both ends of an SSH connection begin by writing, which would be the end
	// of it on a pipe without a buffer.
	near, far := buffered()
	defer near.Close()
	go func() {
		_, _ = io.Copy(near, conn)
		near.Close()
	}()
	go func() {
		_, _ = io.Copy(conn, near)
		conn.Close()
	}()
	server.serve(far)
}

// boot gives a firewall that was started since the last look its lists anew.
func (w *World) boot(id provider.CellID, cfg guestcfg.Config) {
	status, err := w.Provider.Status(context.Background(), id)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.cells[id.Instance]; f != nil && f.boot == status.Firewall.BootID {
		return
	}
	w.cells[id.Instance] = &firewall{boot: status.Firewall.BootID, files: maps.Clone(cfg.Firewall.Policy), generation: 1, started: time.Now()}
}

func (w *World) serveAgent(cfg guestcfg.Config, conn net.Conn) {
	defer conn.Close()
	server := &server{user: cfg.Agent.User, hostKey: cfg.SSH.HostKey.Reveal(), authorized: cfg.SSH.AuthorizedKeys, sftp: w.Home}
	server.run = func(c command) int { return c.local(w.Home, w.tools) }
	server.serve(conn)
}

// verb plays the firewall's fixed set of commands.
func (w *World) verb(instance string, c command) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.cells[instance]
	words := strings.Fields(c.line)
	switch {
	case c.line == "ctl status":
		return c.answer(f.status(instance))
	case c.line == "policy push":
		var push struct {
			Files map[string]string `json:"files"`
		}
		if err := json.NewDecoder(c.stdin).Decode(&push); err != nil {
			return c.refuse(err.Error())
		}
		f.pushes++
		return c.answer(f.replace(push.Files))
	case len(words) > 1 && words[0] == "ctl" && words[1] == "grant":
		life, err := time.ParseDuration(words[5])
		if err != nil {
			return c.refuse(err.Error())
		}
		f.grants = append(f.grants, control.Grant{Kind: words[3], Line: strings.Join(words[6:], " "), Expires: time.Now().Add(life)})
		f.generation++
		return c.answer(control.ReloadResult{SchemaVersion: 1, Generation: f.generation, Changed: map[string]control.Change{words[3]: {Added: words[6:]}}})
	case len(words) > 1 && words[0] == "ctl" && words[1] == "log":
		for _, e := range append(slices.Clone(w.events), w.denials()...) {
			if slices.Contains(words, "--denied") && e.Verdict != audit.Deny {
				continue
			}
			if code := c.answer(e); code != 0 {
				return code
			}
		}
		return 0
	}
	if c.line == "probe" {
		f.probes++
		return c.answer(probe.Firewall{Schema: probe.Schema, DropsByDefault: true, Counters: map[string]uint64{"agent_tcp": 10 * f.probes}})
	}
	return c.refuse(fmt.Sprintf("%q is not one of ctl, policy push, probe", c.line))
}

// denials are what the firewall would have logged of the agent's probes, unless
// the file probe-unseen is in the agent's home.
func (w *World) denials() []audit.Event {
	var request probe.Request
	text, err := os.ReadFile(filepath.Join(w.Home, "probe-request"))
	if err != nil || json.Unmarshal(text, &request) != nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(w.Home, "probe-unseen")); err == nil {
		return nil
	}
	var events []audit.Event
	for kind, host := range map[string]string{audit.KindDNS: request.DeniedDNS, audit.KindHTTPS: request.DeniedHTTPS, audit.KindSSH: request.DeniedSSH} {
		events = append(events, audit.Event{Kind: kind, Host: host, Verdict: audit.Deny, Reason: "no-rule"})
	}
	return events
}

func (f *firewall) status(instance string) control.Status {
	s := control.Status{SchemaVersion: 1, Instance: instance, Version: "test", Generation: f.generation, Started: f.started,
		Policy: map[string]control.PolicyStatus{}, Grants: f.grants}
	for _, kind := range policy.Kinds() {
		name := policyfile.FileName(kind)
		rules, problems := policyfile.Parse(kind, name, []byte(f.files[name]))
		p := control.PolicyStatus{File: name, Rules: len(rules)}
		if problems.Err() == nil {
			sum := sha256.Sum256([]byte(f.files[name]))
			p.SHA256 = hex.EncodeToString(sum[:])
		} else {
			p.Error = "the list has errors"
		}
		s.Policy[string(kind)] = p
	}
	return s
}

// replace swaps lists and tells the difference, rule by rule.
func (f *firewall) replace(files map[string]string) control.ReloadResult {
	result := control.ReloadResult{SchemaVersion: 1, Changed: map[string]control.Change{}, Problems: []control.Problem{}}
	for name, text := range files {
		kind, _ := policyfile.KindOf(name)
		before, after := ruleSet(kind, f.files[name]), ruleSet(kind, text)
		change := control.Change{Added: missingFrom(after, before), Removed: missingFrom(before, after)}
		if len(change.Added)+len(change.Removed) > 0 {
			result.Changed[string(kind)] = change
			result.Revoked += len(change.Removed)
		}
		f.files[name] = text
	}
	f.generation++
	result.Generation = f.generation
	return result
}

func ruleSet(kind policy.Kind, text string) []string {
	rules, _ := policyfile.Parse(kind, "list", []byte(text))
	var out []string
	for _, r := range rules {
		out = append(out, r.String())
	}
	return out
}

func missingFrom(a, b []string) []string {
	out := []string{}
	for _, s := range a {
		if !slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}
