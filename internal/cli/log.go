package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/cell"
	"github.com/rootcell-ai/rootcell/internal/ui"
)

type logCmd struct {
	Follow bool   `short:"f" help:"Go on with new decisions until interrupted."`
	Denied bool   `help:"Show denials only."`
	Since  string `placeholder:"TIME" help:"Leave out what is older: an age such as 10m or 2h, or a time such as 2026-11-22T10:00:00Z."`
	Host   string `help:"Show one host and the names below it."`
	Number int    `short:"n" placeholder:"COUNT" default:"100" help:"At most so many past decisions, the newest; 0 for all."`
}

func (l *logCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	since, err := parseSince(l.Since, time.Now())
	if err != nil {
		return err
	}
	if l.Number < 0 {
		return &usage{"-n must not be negative"}
	}
	o := cell.LogOptions{Follow: l.Follow, Denied: l.Denied, Since: since, Host: l.Host, Limit: l.Number}
	return c.Log(a.ctx, o, func(e audit.Event, raw json.RawMessage) error {
		if a.ui.JSON() {
			return a.ui.AnswerLine(raw)
		}
		a.ui.Printf("%s", a.eventLine(e))
		return nil
	})
}

func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if age, err := time.ParseDuration(s); err == nil && age >= 0 {
		return now.Add(-age), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02T15:04:05", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, &usage{fmt.Sprintf("--since %q is neither an age such as 10m nor a time such as 2026-11-22T10:00:00Z", s)}
}

// eventLine is one decision for people. All text of an event may have been
// chosen by the agent, so every field is made safe.
func (a *app) eventLine(e audit.Event) string {
	verdict := a.ui.Style(ui.Green, "allow")
	if e.Verdict != audit.Allow {
		verdict = a.ui.Style(ui.Red, "deny ")
	}
	parts := []string{e.Time.Local().Format("2006-01-02 15:04:05"), verdict, fmt.Sprintf("%-5s", ui.Safe(e.Kind)), ui.Safe(e.Host)}
	if e.Method != "" {
		parts = append(parts, ui.Safe(e.Method))
	}
	if e.Path != "" {
		parts = append(parts, ui.Safe(e.Path))
	}
	if e.Status != 0 && e.Kind == audit.KindHTTPS {
		parts = append(parts, fmt.Sprint(e.Status))
	}
	if e.Reason != "" {
		parts = append(parts, "("+ui.Safe(e.Reason)+")")
	}
	if e.Rule != "" {
		parts = append(parts, "["+ui.Safe(e.Rule)+"]")
	}
	return strings.Join(parts, " ")
}
