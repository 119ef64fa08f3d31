package cell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rootcell-ai/rootcell/internal/control"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

// pushed is what the firewall's verb `policy push` takes.
type pushed struct {
	Files map[string]string `json:"files"`
}

// push sends allowlists to the firewall, which checks them, stores them and
// swaps its policy. Lists that are not among them stay as they are. The caller
// holds the instance's lock.
//
// Invariant: the lists are read under the same lock that is held until the
// firewall has answered, so an older version can never overwrite a newer one
// (TestConcurrentPushesEndWithTheNewestLists).
func (l *link) push(ctx context.Context, lists map[string]string) (control.ReloadResult, error) {
	text, err := json.Marshal(pushed{Files: lists})
	if err != nil {
		return control.ReloadResult{}, fmt.Errorf("encoding the allowlists: %w", err)
	}
	var result control.ReloadResult
	if err := l.ask(ctx, text, &result, "policy", "push"); err != nil {
		return control.ReloadResult{}, err
	}
	return result, nil
}

// current asks the firewall whether it enforces the live allowlists. Lists with
// an error do not count: they cannot be in force.
func (l *link) current(ctx context.Context) (bool, error) {
	status, err := l.status(ctx)
	if err != nil {
		return false, err
	}
	lists, err := l.cell.lists()
	if err != nil {
		return false, err
	}
	good, problems := checkLists(lists)
	l.cell.warnLists(problems)
	return inForce(status, good), nil
}

// daemonStart is how long the daemon may take to answer after the firewall's
// SSH server did: at boot, and when it was just started again.
const daemonStart = 45 * time.Second

// status asks the daemon how it is, again while it is still starting.
func (l *link) status(ctx context.Context) (control.Status, error) {
	deadline := time.Now().Add(daemonStart)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		var status control.Status
		err := l.ask(ctx, nil, &status, "ctl", "status")
		var no *refusal
		if err == nil || !errors.As(err, &no) || time.Now().After(deadline) {
			return status, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return status, context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// inForce says whether the daemon enforces exactly these lists.
func inForce(status control.Status, lists map[string]string) bool {
	hashes := map[string]string{}
	for _, p := range status.Policy {
		hashes[p.File] = p.SHA256
	}
	for name, text := range lists {
		if hashes[name] != digest([]byte(text)) {
			return false
		}
	}
	return true
}

// sync pushes the allowlists when the firewall enforces others. The caller
// does not hold the instance's lock.
func (l *link) sync(ctx context.Context) error {
	begun := time.Now()
	current, err := l.current(ctx)
	l.cell.Logger.Debug("asked for the policy in force", "current", current, "took", time.Since(begun))
	if err != nil || current {
		return err
	}
	lock, err := l.cell.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Release()
	return l.syncLocked(ctx)
}

// syncLocked pushes those allowlists that have no error. A bad one keeps
// nobody out of the agent: what is in force for its kind stays in force.
func (l *link) syncLocked(ctx context.Context) error {
	lists, err := l.cell.lists()
	if err != nil {
		return err
	}
	good, _ := checkLists(lists)
	if len(good) == 0 {
		return nil
	}
	result, err := l.push(ctx, good)
	if err != nil {
		return err
	}
	if len(result.Changed) > 0 {
		l.cell.Tell("pushed the changed allowlists to the firewall")
	}
	return nil
}

// warnLists tells of the errors of lists whose former version stays in force.
func (c *Cell) warnLists(problems policyfile.Problems) {
	for _, p := range problems.Errors() {
		p.File = c.path("proxy", p.File)
		c.Warn(p.String())
	}
	if problems.Err() != nil {
		c.Warn("a list with an error is not pushed; mend it and run " + c.Hint("allow"))
	}
}
