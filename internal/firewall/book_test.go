package firewall

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/control"
	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

// lists is a policy directory and the book that reads it.
type lists struct {
	t *testing.T
	*book
}

func newLists(t *testing.T, dns, https, ssh string) *lists {
	t.Helper()
	l := &lists{t, newBook(t.TempDir(), enforce.New(), slog.New(slog.DiscardHandler))}
	t.Cleanup(l.stop)
	l.write("allowed-dns.txt", dns)
	l.write("allowed-https.txt", https)
	l.write("allowed-ssh.txt", ssh)
	return l
}

func (l *lists) write(name, text string) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lists) decide(kind policy.Kind, host string) policy.Decision {
	l.t.Helper()
	name, err := hostname.Parse(host)
	if err != nil {
		l.t.Fatal(err)
	}
	p := l.gate.Current().Policy
	switch kind {
	case policy.KindDNS:
		return p.DNS(name)
	case policy.KindSSH:
		return p.SSH(name)
	}
	return p.TLS(name)
}

func (l *lists) want(kind policy.Kind, host string, reason policy.Reason) {
	l.t.Helper()
	if d := l.decide(kind, host); d.Allow != (reason == "") || d.Reason != reason {
		l.t.Errorf("%s %s: %+v, want reason %q", kind, host, d, reason)
	}
}

func TestReloadSaysWhatChanged(t *testing.T) {
	l := newLists(t, "a.test\n", "a.test\nb.test GET /\n", "")
	l.reload()
	l.write("allowed-dns.txt", "# moved\nA.test.\nc.test\n")
	l.write("allowed-https.txt", "a.test\n")
	got := l.reload()
	want := control.ReloadResult{SchemaVersion: 1, Generation: 2, Problems: []control.Problem{}, Changed: map[string]control.Change{
		"dns":   {Added: []string{"c.test"}, Removed: []string{}},
		"https": {Added: []string{}, Removed: []string{"b.test GET /"}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	l.want(policy.KindDNS, "c.test", "")
	l.want(policy.KindHTTPS, "b.test", policy.NoRule)
}

func TestABadListKeepsTheRunningOne(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"an error in one line": func(t *testing.T, path string) { replaceFile(t, path, "good.test\nbad_name.test\n") },
		"a removed file":       func(t *testing.T, path string) { os.Remove(path) },
		"a directory":          func(t *testing.T, path string) { os.Remove(path); os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLists(t, "a.test\n", "a.test\n", "a.test\n")
			l.reload()
			spoil(t, filepath.Join(l.dir, "allowed-https.txt"))
			l.write("allowed-ssh.txt", "b.test\n")
			result := l.reload()
			if len(result.Problems) == 0 || result.Problems[0].Kind != "https" || result.Problems[0].File != "allowed-https.txt" {
				t.Errorf("problems: %+v", result.Problems)
			}
			l.want(policy.KindHTTPS, "a.test", "")               // as before
			l.want(policy.KindHTTPS, "good.test", policy.NoRule) // not half applied
			l.want(policy.KindSSH, "b.test", "")                 // the other kinds go on
			kinds, _ := l.status()
			if status := kinds["https"]; status.Error == "" || status.Rules != 1 || status.SHA256 == "" {
				t.Errorf("status: %+v", status)
			}
			if kinds["ssh"].Error != "" {
				t.Errorf("status: %+v", kinds["ssh"])
			}
		})
	}
}

func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestABadListAtStartDeniesItsKind(t *testing.T) {
	l := newLists(t, "a.test\nbad_name.test\n", "a.test\n", "a.test\n")
	os.Remove(filepath.Join(l.dir, "allowed-ssh.txt"))
	l.reload()
	l.want(policy.KindDNS, "a.test", policy.BadPolicy)
	l.want(policy.KindSSH, "a.test", policy.BadPolicy)
	l.want(policy.KindHTTPS, "a.test", "")
	kinds, _ := l.status()
	if status := kinds["dns"]; !strings.Contains(status.Error, "allowed-dns.txt:2:") || status.Rules != 0 || status.SHA256 != "" {
		t.Errorf("status: %+v", status)
	}
	if kinds["ssh"].Error == "" {
		t.Error("a missing list is not in the status")
	}
	if _, err := l.give(policy.KindDNS, "b.test", time.Minute); err == nil {
		t.Error("a grant was given without a list")
	}
}

func TestEmptyListsDenyEverything(t *testing.T) {
	l := newLists(t, "", "# nothing\n", "\n\n")
	l.reload()
	for _, kind := range policy.Kinds() {
		l.want(kind, "a.test", policy.NoRule)
	}
}

func TestGrantsEndByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists(t, "", "", "")
		l.reload()
		result, err := l.give(policy.KindHTTPS, "A.test", 30*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]control.Change{"https": {Added: []string{"a.test"}, Removed: []string{}}}, result.Changed); diff != "" {
			t.Error(diff)
		}
		if _, err := l.give(policy.KindSSH, "b.test", 10*time.Minute); err != nil {
			t.Fatal(err)
		}
		l.want(policy.KindHTTPS, "a.test", "")
		if d := l.decide(policy.KindHTTPS, "a.test"); !strings.HasPrefix(d.Rule, "grant:") {
			t.Errorf("the rule is called %q", d.Rule)
		}
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		l.want(policy.KindHTTPS, "a.test", "")
		l.want(policy.KindSSH, "b.test", policy.NoRule)
		l.reload()
		l.want(policy.KindHTTPS, "a.test", "")
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		l.want(policy.KindHTTPS, "a.test", policy.NoRule)
		if _, grants := l.status(); len(grants) != 0 {
			t.Errorf("grants that are over: %+v", grants)
		}
	})
}

func TestGivingAGrantAgainProlongsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLists(t, "", "", "")
		l.reload()
		for range 3 {
			if _, err := l.give(policy.KindDNS, "a.test", time.Minute); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Second)
		}
		synctest.Wait()
		l.want(policy.KindDNS, "a.test", "")
		if _, grants := l.status(); len(grants) != 1 {
			t.Errorf("grants: %+v", grants)
		}
		l.stop()
	})
}

func TestAGrantEndsByTheWallClockToo(t *testing.T) {
	now := time.Now()
	g := grant{expires: now.Add(time.Hour)}
	slept := now.Round(0).Add(2 * time.Hour) // no monotonic reading: only the wall clock has moved
	if !g.over(slept) {
		t.Error("the grant lives on after a suspension")
	}
	if g.over(now) {
		t.Error("the grant is over at once")
	}
}

func TestRevoke(t *testing.T) {
	l := newLists(t, "", "", "")
	l.reload()
	for _, line := range []string{"a.test", "b.test", "c.test GET /x$"} {
		if _, err := l.give(policy.KindHTTPS, line, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.revoke(policy.KindHTTPS, "A.TEST."); err != nil {
		t.Error(err)
	}
	l.want(policy.KindHTTPS, "a.test", policy.NoRule)
	l.want(policy.KindHTTPS, "b.test", "")
	if _, err := l.revoke(policy.KindDNS, "b.test"); err == nil {
		t.Error("revoked a grant of another kind")
	}
	l.revokeAll()
	l.want(policy.KindHTTPS, "b.test", policy.NoRule)
}

func TestGrantsThatAreNoRuleAreRefused(t *testing.T) {
	l := newLists(t, "", "", "")
	l.reload()
	for _, line := range []string{"", "# comment", "bad_name.test", "a.test GET /(?=x)", "a.test\nb.test", "10.0.0.1"} {
		if _, err := l.give(policy.KindHTTPS, line, time.Hour); err == nil {
			t.Errorf("granted %q", line)
		}
	}
	if generation := l.gate.Current().Generation; generation != 1 {
		t.Errorf("generation %d after refusals, want 1", generation)
	}
}

func TestGrantsWithoutEffectAreRefused(t *testing.T) {
	l := newLists(t, "", "scoped.test GET /public/\nwhole.test\n", "")
	l.reload()
	for _, line := range []string{"scoped.test", "whole.test GET /a/"} {
		if _, err := l.give(policy.KindHTTPS, line, time.Hour); err == nil {
			t.Errorf("granted %q, which changes nothing", line)
		}
	}
	if _, err := l.give(policy.KindHTTPS, "scoped.test GET /other/", time.Hour); err != nil {
		t.Error(err)
	}
	kinds, grants := l.status()
	if rules := kinds["https"].Rules; rules != 2 || len(grants) != 1 {
		t.Errorf("%d rules and %d grants, want 2 and 1", rules, len(grants))
	}
	// A list may take a living grant's effect away; that is said, and not counted as a rule.
	l.write("allowed-https.txt", "scoped.test\n")
	result := l.reload()
	if len(result.Problems) != 1 || !result.Problems[0].Warning || !strings.HasPrefix(result.Problems[0].File, "grant:") {
		t.Errorf("problems %+v, want the idle grant", result.Problems)
	}
	if kinds, _ := l.status(); kinds["https"].Rules != 1 {
		t.Errorf("%d rules, want 1", kinds["https"].Rules)
	}
}

func TestReloadClosesWhatIsNoLongerAllowed(t *testing.T) {
	l := newLists(t, "", "", "a.test\n")
	l.reload()
	flow := &flow{host: "a.test", revoked: make(chan policy.Decision, 1)}
	release, d := l.gate.Admit(flow)
	defer release()
	if !d.Allow {
		t.Fatal(d)
	}
	l.write("allowed-ssh.txt", "")
	if result := l.reload(); result.Revoked != 1 {
		t.Errorf("revoked %d flows, want 1", result.Revoked)
	}
	if d := <-flow.revoked; d.Reason != policy.NoRule {
		t.Errorf("revoked with %+v", d)
	}
}

type flow struct {
	host    string
	revoked chan policy.Decision
}

func (f *flow) Judge(p *policy.Policy) policy.Decision {
	name, _ := hostname.Parse(f.host)
	return p.SSH(name)
}

func (f *flow) Revoke(d policy.Decision) { f.revoked <- d }
