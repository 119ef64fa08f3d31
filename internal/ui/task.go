package ui

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// frames of the spinner, in ASCII.
const frames = `|/-\`

// redraw is how often a running task is drawn on a terminal, and plainEvery
// how often one that goes on says so where there is none.
const (
	redraw     = 100 * time.Millisecond
	plainEvery = 15 * time.Second
)

// Task is something that takes time. On a terminal the last line shows it with
// a spinner, the time so far and bytes if there are any; elsewhere its beginning,
// its end, and a sign of life in between are lines. One task is drawn at a
// time: a task begun while another runs is drawn in its place until it ends.
type Task struct {
	u       *UI
	outer   *Task
	begun   time.Time
	stop    chan struct{}
	stopped sync.WaitGroup

	// protected by u.mu
	text        string
	detail      string
	done, total int64 // bytes; total 0 is unknown
	frame       int
	shown       bool // the line is on the terminal
	ended       bool
}

// Task begins something. Every task must be ended by Done or Fail; what comes
// after the first of them is ignored.
func (u *UI) Task(format string, args ...any) *Task {
	t := &Task{u: u, begun: u.now(), stop: make(chan struct{}), text: Safe(fmt.Sprintf(format, args...))}
	u.mu.Lock()
	u.clear()
	t.outer, u.running = u.running, t
	if !u.live {
		u.plain(t.text + " …")
	}
	u.draw()
	u.mu.Unlock()
	t.stopped.Go(t.animate)
	return t
}

// Detail says what the task is doing now; empty for nothing in particular.
// Where there is no terminal each new detail is a line.
func (t *Task) Detail(format string, args ...any) {
	t.u.mu.Lock()
	defer t.u.mu.Unlock()
	detail := Safe(fmt.Sprintf(format, args...))
	if t.ended || detail == t.detail {
		return
	}
	t.detail = detail
	if !t.u.live && detail != "" {
		t.u.plain(t.text + ": " + detail)
	}
}

// Bytes says how much is done. A total of 0 is unknown.
func (t *Task) Bytes(done, total int64) {
	t.u.mu.Lock()
	defer t.u.mu.Unlock()
	t.done, t.total = done, total
}

// Done ends the task well and leaves a line with the time it took.
func (t *Task) Done() { t.end("done") }

// Fail ends the task; the error is reported by someone else.
func (t *Task) Fail() { t.end("failed") }

func (t *Task) end(how string) {
	u := t.u
	u.mu.Lock()
	if t.ended {
		u.mu.Unlock()
		return
	}
	t.ended = true
	u.clear()
	u.drop(t)
	line := t.text
	if t.done > 0 {
		line += ", " + formatBytes(t.done)
	}
	u.plain(fmt.Sprintf("%s: %s in %s", line, how, Elapsed(u.now().Sub(t.begun))))
	u.draw()
	u.mu.Unlock()
	close(t.stop)
	t.stopped.Wait()
}

// drop takes a task out of the chain of running ones.
func (u *UI) drop(t *Task) {
	for at := &u.running; *at != nil; at = &(*at).outer {
		if *at == t {
			*at = t.outer
			return
		}
	}
}

func (t *Task) animate() {
	interval := plainEvery
	if t.u.live {
		interval = redraw
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-ticker.C:
		}
		t.u.mu.Lock()
		switch {
		case t.ended || t.u.running != t:
		case t.u.live:
			t.frame++
			t.u.clear()
			t.u.draw()
		default:
			t.u.plain(t.line())
		}
		t.u.mu.Unlock()
	}
}

// line is what there is to say about a running task.
func (t *Task) line() string {
	var b strings.Builder
	b.WriteString(t.text)
	if t.detail != "" {
		b.WriteString(": " + t.detail)
	}
	switch {
	case t.total > 0:
		done := min(t.done, t.total)
		fmt.Fprintf(&b, " %3d%% %s of %s", done*100/t.total, formatBytes(done), formatBytes(t.total))
	case t.done > 0:
		b.WriteString(" " + formatBytes(t.done))
	}
	b.WriteString(" (" + Elapsed(t.u.now().Sub(t.begun)) + ")")
	return b.String()
}

// plain writes a whole line. The caller holds u.mu and has cleared.
func (u *UI) plain(line string) {
	_, _ = io.WriteString(u.stderr, "rootcell: "+line+"\n")
}

// draw puts the running task on the last line of a terminal. The line is cut
// to the width, since a wrapped one could not be cleared.
func (u *UI) draw() {
	t := u.running
	if t == nil || !u.live {
		return
	}
	line := clip(string(frames[t.frame%len(frames)])+" "+t.line(), u.width()-1)
	_, _ = io.WriteString(u.stderr, line)
	t.shown = true
}

// clear takes the running task's line off the terminal.
func (u *UI) clear() {
	if t := u.running; t != nil && t.shown {
		_, _ = io.WriteString(u.stderr, "\r\x1b[K")
		t.shown = false
	}
}

func clip(s string, width int) string {
	n := 0
	for i, r := range s {
		if n += cells(string(r)); n > width {
			return s[:i]
		}
	}
	return s
}

// Elapsed is a time for people: 0.4s, 12s, 3m05s, 2h10m.
func Elapsed(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// formatBytes is a size for people: 512 B, 1.5 MiB.
func formatBytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < 4 {
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[unit])
}
