package cell

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/sshx"
)

// LogOptions select decisions of the firewall.
type LogOptions struct {
	Follow bool
	Denied bool
	Since  time.Time // zero for all
	Host   string    // this host and the names below it
	Limit  int       // the newest ones; 0 for all that are kept
}

// maxEvent bounds one line of the log, in bytes. The daemon caps every field.
const maxEvent = 256 << 10

// Log calls each with every selected decision, oldest first, until the end of
// the log, the end of ctx while following, or an error of each. Every string
// of an event may hold what a hostile client sent; raw is the line it came in.
func (c *Cell) Log(ctx context.Context, o LogOptions, each func(e audit.Event, raw json.RawMessage) error) error {
	l, err := c.attach(ctx, provider.RoleFirewall)
	if err != nil {
		return err
	}
	defer l.Close()
	return l.log(ctx, o, each)
}

func (l *link) log(ctx context.Context, o LogOptions, each func(e audit.Event, raw json.RawMessage) error) error {
	c := l.cell
	argv := []string{"ctl", "log"}
	if o.Follow {
		argv = append(argv, "-f")
	}
	if o.Denied {
		argv = append(argv, "--denied")
	}
	if !o.Since.IsZero() {
		argv = append(argv, "--since", o.Since.UTC().Format(time.RFC3339Nano))
	}
	if o.Host != "" {
		argv = append(argv, "--host", o.Host)
	}
	if o.Limit > 0 {
		argv = append(argv, "-n", strconv.Itoa(o.Limit))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lines := &lineWriter{each: func(line []byte) error {
		var e audit.Event
		if err := json.Unmarshal(line, &e); err != nil {
			c.Logger.Debug("skipping a line of the log", "error", err)
			return nil
		}
		return each(e, line)
	}, failed: cancel}
	var stderr bytes.Buffer
	code, err := l.firewall.Run(ctx, sshx.Command{Argv: argv, Stdout: lines, Stderr: &headWriter{to: &stderr, left: 4 << 10}})
	switch cause := context.Cause(ctx); {
	case lines.err != nil:
		return lines.err
	case cause != nil:
		return cause
	case err != nil:
		return fmt.Errorf("reading the log of instance %q: %w", c.Name, err)
	case code != 0:
		return &refusal{verb: "log", code: code, text: strings.TrimSpace(stderr.String())}
	}
	return nil
}

// lineWriter hands on whole lines. The first error of each ends it all.
type lineWriter struct {
	each   func([]byte) error
	failed func(error)
	rest   []byte
	err    error
}

func (w *lineWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	w.rest = append(w.rest, p...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			break
		}
		w.rest = rest
		if len(line) == 0 {
			continue
		}
		if err := w.each(line); err != nil {
			return 0, w.fail(err)
		}
	}
	if len(w.rest) > maxEvent {
		return 0, w.fail(errors.New("reading the log: the firewall sent a line without end"))
	}
	return len(p), nil
}

func (w *lineWriter) fail(err error) error {
	w.err = err
	w.failed(err)
	return err
}

// headWriter keeps the first bytes of what is written and drops the others.
type headWriter struct {
	to   *bytes.Buffer
	left int
}

func (w *headWriter) Write(p []byte) (int, error) {
	keep := p[:min(len(p), w.left)]
	w.left -= len(keep)
	w.to.Write(keep)
	return len(p), nil
}
