package firewall

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/rootcell-ai/rootcell/internal/control"
	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

// book keeps the lists and grants that make up the policy in force and is the
// only one that changes it.
type book struct {
	dir  string
	gate *enforce.Gate
	log  *slog.Logger

	mu     sync.Mutex             // protects all the following; also makes changes one at a time
	lists  policyfile.Files       // in force; a kind without one is denied
	refuse map[policy.Kind]string // why the list on disk is not in force
	rules  map[policy.Kind]int    // number of rules of the lists in force
	grants []grant
	nextID int
	timer  *time.Timer // runs expire; nil without grants
}

func newBook(dir string, gate *enforce.Gate, log *slog.Logger) *book {
	return &book{dir: dir, gate: gate, log: log, lists: policyfile.Files{}, refuse: map[policy.Kind]string{}, rules: map[policy.Kind]int{}}
}

// reload reads the lists again. A list with an error is refused whole and the one
// in force stays; where none is in force, the kind stays denied.
//
// Invariant: no reload widens what is allowed beyond what the accepted lists and
// the living grants say (TestABadListKeepsTheRunningOne, TestABadListAtStartDeniesItsKind).
func (b *book) reload() control.ReloadResult {
	b.mu.Lock()
	defer b.mu.Unlock()
	onDisk, problems := policyfile.Load(b.dir)
	lists := policyfile.Files{}
	refuse := map[policy.Kind]string{}
	for _, problem := range problems {
		if kind, ok := policyfile.KindOf(problem.File); ok {
			refuse[kind] = problem.String()
		}
	}
	for _, kind := range policy.Kinds() {
		running, isRunning := b.lists[kind]
		file, isThere := onDisk[kind]
		if isThere {
			_, found := policyfile.Parse(kind, file.Name, []byte(file.Text))
			problems = append(problems, found...)
			if err := found.Err(); err != nil {
				refuse[kind] = err.Error()
				isThere = false
			}
		}
		switch {
		case isThere:
			lists[kind] = file
		case isRunning:
			lists[kind] = running
		}
	}
	b.refuse = refuse
	result := b.apply(lists, b.grants)
	result.Problems = append(result.Problems, toControl(problems, "")...)
	for kind, why := range refuse {
		b.log.Error("list refused", "kind", string(kind), "running", isIn(lists, kind), "problem", why)
	}
	return result
}

// apply puts lists and grants in force. It needs b.mu.
func (b *book) apply(lists policyfile.Files, grants []grant) control.ReloadResult {
	compiled, problems := policyfile.Compile(lists, asGrants(grants)...)
	idle := policyfile.Idle(lists, asGrants(grants)...)
	changed := b.changes(lists, grants)
	revoked := b.gate.Revoked()
	generation := b.gate.Swap(compiled)
	b.lists, b.grants = lists, grants
	for _, kind := range policy.Kinds() {
		b.rules[kind] = 0
		if rules, ok := compiled.Loaded(kind); ok {
			b.rules[kind] = rules - len(ofKind(grants, kind)) + idleOf(idle, grants, kind)
		}
	}
	b.schedule()
	if err := problems.Err(); err != nil { // Parse and ParseLine accepted each part already
		b.log.Error("compiling accepted lists", "err", err)
	}
	result := control.ReloadResult{
		SchemaVersion: control.Version, Generation: generation, Changed: changed,
		Problems: []control.Problem{}, Revoked: int(b.gate.Revoked() - revoked),
	}
	for _, g := range grants {
		if why, ok := idle[g.id]; ok {
			result.Problems = append(result.Problems, control.Problem{Kind: string(g.kind), File: "grant:" + g.id, What: why.Error(), Warning: true})
		}
	}
	b.log.Info("policy in force", "generation", generation, "changed", len(changed), "revoked", result.Revoked)
	return result
}

// idleOf counts the grants of a kind that have no effect.
func idleOf(idle map[string]error, grants []grant, kind policy.Kind) int {
	return len(slices.DeleteFunc(ofKind(grants, kind), func(g grant) bool { return idle[g.id] == nil }))
}

// changes compares what is in force with what is about to be.
func (b *book) changes(lists policyfile.Files, grants []grant) map[string]control.Change {
	out := map[string]control.Change{}
	for _, kind := range policy.Kinds() {
		sameGrants := slices.EqualFunc(ofKind(b.grants, kind), ofKind(grants, kind), func(a, b grant) bool { return a.line == b.line })
		if b.lists[kind] == lists[kind] && sameGrants {
			continue
		}
		before, after := ruleSet(kind, b.lists, b.grants), ruleSet(kind, lists, grants)
		change := control.Change{Added: missing(after, before), Removed: missing(before, after)}
		if len(change.Added)+len(change.Removed) > 0 {
			out[string(kind)] = change
		}
	}
	return out
}

// ruleSet returns the rules of a kind by their normal form.
func ruleSet(kind policy.Kind, lists policyfile.Files, grants []grant) map[string]struct{} {
	set := map[string]struct{}{}
	if file, ok := lists[kind]; ok {
		rules, _ := policyfile.Parse(kind, file.Name, []byte(file.Text))
		for _, rule := range rules {
			set[rule.String()] = struct{}{}
		}
	}
	for _, g := range ofKind(grants, kind) {
		set[g.line] = struct{}{}
	}
	return set
}

// missing returns what of a is not in b, sorted.
func missing(a, b map[string]struct{}) []string {
	out := []string{}
	for text := range a {
		if _, ok := b[text]; !ok {
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return out
}

// status describes the lists and grants.
func (b *book) status() (map[string]control.PolicyStatus, []control.Grant) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kinds := map[string]control.PolicyStatus{}
	for _, kind := range policy.Kinds() {
		status := control.PolicyStatus{File: policyfile.FileName(kind), Error: b.refuse[kind]}
		if file, ok := b.lists[kind]; ok {
			sum := sha256.Sum256([]byte(file.Text))
			status.Rules, status.SHA256 = b.rules[kind], hex.EncodeToString(sum[:])
		}
		kinds[string(kind)] = status
	}
	grants := []control.Grant{}
	for _, g := range b.grants {
		grants = append(grants, control.Grant{Kind: string(g.kind), Line: g.line, Expires: g.expires.Round(0).UTC()})
	}
	return kinds, grants
}

// toControl converts problems. Those of a grant, which has no file, are of the
// given kind.
func toControl(problems policyfile.Problems, grant policy.Kind) []control.Problem {
	out := make([]control.Problem, 0, len(problems))
	for _, p := range problems {
		kind, ok := policyfile.KindOf(p.File)
		if !ok {
			kind = grant
		}
		out = append(out, control.Problem{Kind: string(kind), File: p.File, Line: p.Line, Column: p.Column,
			What: p.What, Hint: p.Hint, Warning: p.Warning})
	}
	return out
}

func isIn(lists policyfile.Files, kind policy.Kind) bool {
	_, ok := lists[kind]
	return ok
}

// errNotInForce words why a grant of a kind without a list cannot be given.
func errNotInForce(kind policy.Kind, why string) error {
	return fmt.Errorf("granting a rule for %s: its list is not in force (%s); mend the list first", kind, why)
}
