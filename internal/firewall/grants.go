package firewall

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/rootcell-ai/rootcell/internal/control"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

const (
	// maxGrants bounds the grants that live at once.
	maxGrants = 1024
	// lookAgain bounds how late a grant can end after the machine was suspended, when
	// timers stand still.
	lookAgain = 5 * time.Second
)

// grant is a rule that ends by itself. Grants live in memory only: a daemon that
// starts again has none, which denies.
type grant struct {
	id      string
	kind    policy.Kind
	line    string    // the rule's normal form
	expires time.Time // with its monotonic reading
}

// over reports whether the grant has ended, by either clock: the monotonic one
// stands still while the machine sleeps, the wall clock can be set back.
func (g grant) over(now time.Time) bool {
	return !now.Before(g.expires) || !now.Round(0).Before(g.expires.Round(0))
}

// give allows line for the given time. Giving it again sets its end anew.
func (b *book) give(kind policy.Kind, line string, life time.Duration) (control.ReloadResult, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !isIn(b.lists, kind) {
		return control.ReloadResult{}, errNotInForce(kind, b.refuse[kind])
	}
	b.nextID++
	g := grant{id: strconv.Itoa(b.nextID), kind: kind, expires: time.Now().Add(life)}
	rule, problems := policyfile.ParseLine(kind, "grant:"+g.id, line)
	if err := problems.Err(); err != nil {
		return control.ReloadResult{}, &control.Error{Code: control.CodeInvalid, Message: err.Error()}
	}
	g.line = rule.String()
	grants := without(b.living(time.Now()), kind, g.line)
	if len(grants) >= maxGrants {
		return control.ReloadResult{}, fmt.Errorf("granting %q: %d grants live already; revoke some", g.line, maxGrants)
	}
	grants = append(grants, g)
	// Invariant: a grant that is given has an effect (TestGrantsWithoutEffectAreRefused).
	if why, ok := policyfile.Idle(b.lists, asGrants(grants)...)[g.id]; ok {
		return control.ReloadResult{}, &control.Error{Code: control.CodeInvalid, Message: "granting a rule without effect: " + why.Error()}
	}
	result := b.apply(b.lists, grants)
	result.Problems = append(result.Problems, toControl(problems, kind)...)
	return result, nil
}

// revoke ends the grant of line.
func (b *book) revoke(kind policy.Kind, line string) (control.ReloadResult, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if rule, problems := policyfile.ParseLine(kind, "line", line); problems.Err() == nil {
		line = rule.String()
	}
	grants := without(b.grants, kind, line)
	if len(grants) == len(b.grants) {
		return control.ReloadResult{}, &control.Error{Code: control.CodeInvalid,
			Message: fmt.Sprintf("revoking %q: there is no such grant for %s; `status` lists them", line, kind)}
	}
	return b.apply(b.lists, grants), nil
}

// revokeAll ends every grant.
func (b *book) revokeAll() control.ReloadResult {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.apply(b.lists, nil)
}

// expire takes ended grants out of force.
func (b *book) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	living := b.living(time.Now())
	if len(living) == len(b.grants) {
		b.schedule()
		return
	}
	b.log.Info("grants expired", "number", len(b.grants)-len(living))
	b.apply(b.lists, living)
}

// schedule sets the timer for the grant that ends first. It needs b.mu.
func (b *book) schedule() {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	if len(b.grants) == 0 {
		return
	}
	wait := lookAgain
	for _, g := range b.grants {
		wait = min(wait, time.Until(g.expires))
	}
	b.timer = time.AfterFunc(max(wait, 0), b.expire)
}

// stop ends the timer.
func (b *book) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
}

func (b *book) living(now time.Time) []grant {
	var out []grant
	for _, g := range b.grants {
		if !g.over(now) {
			out = append(out, g)
		}
	}
	return out
}

func without(grants []grant, kind policy.Kind, line string) []grant {
	return slices.DeleteFunc(slices.Clone(grants), func(g grant) bool { return g.kind == kind && g.line == line })
}

func ofKind(grants []grant, kind policy.Kind) []grant {
	return slices.DeleteFunc(slices.Clone(grants), func(g grant) bool { return g.kind != kind })
}

func asGrants(grants []grant) []policyfile.Grant {
	out := make([]policyfile.Grant, len(grants))
	for i, g := range grants {
		out[i] = policyfile.Grant{Kind: g.kind, ID: g.id, Line: g.line}
	}
	return out
}

// asRefusal turns an error into what the control socket answers.
func asRefusal(err error) *control.Error {
	if refusal, ok := errors.AsType[*control.Error](err); ok {
		return refusal
	}
	return &control.Error{Code: control.CodeFailed, Message: err.Error()}
}
