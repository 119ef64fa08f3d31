// Package ui is how rootcell talks to people and scripts. Standard output has
// the answer and nothing else; messages, progress and questions go to standard
// error, in plain lines unless that is a terminal. With JSON the answer, errors
// included, is one versioned object on standard output.
//
// Text that comes from a guest, or from anything a guest can influence, is not
// written as it is: Safe makes it harmless. Tables, messages and errors of this
// package do that themselves.
package ui

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// SchemaVersion is the version of every JSON answer. Fields are only ever
// added within a version.
const SchemaVersion = 1

// Options say where the output goes and how it may look.
type Options struct {
	Stdin          io.Reader // for questions; may be nil
	Stdout, Stderr io.Writer
	JSON           bool
	NoColor        bool                // --no-color
	Getenv         func(string) string // nil means os.Getenv
	Now            func() time.Time    // nil means time.Now
}

// UI writes to one pair of outputs. It is safe for concurrent use.
type UI struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	json           bool
	colorOut       bool // styles on standard output
	colorErr       bool
	live           bool // standard error is a terminal that can redraw a line
	now            func() time.Time
	width          func() int

	mu      sync.Mutex // protects everything written to stderr, and running
	running *Task      // drawn on the last line of a live terminal
}

// New looks at the outputs and the environment once.
func New(options Options) *UI {
	getenv, now := options.Getenv, options.Now
	if getenv == nil {
		getenv = os.Getenv
	}
	if now == nil {
		now = time.Now
	}
	smart := getenv("TERM") != "dumb"
	return &UI{
		stdin:    options.Stdin,
		stdout:   options.Stdout,
		stderr:   options.Stderr,
		json:     options.JSON,
		colorOut: colored(options, getenv, isTerminal(options.Stdout)),
		colorErr: colored(options, getenv, isTerminal(options.Stderr)),
		live:     isTerminal(options.Stderr) && smart,
		now:      now,
		width:    func() int { return columns(options.Stderr) },
	}
}

// colored decides in the usual order: the flag, NO_COLOR (https://no-color.org),
// CLICOLOR_FORCE, then whether there is a terminal that can show colours.
func colored(options Options, getenv func(string) string, terminal bool) bool {
	switch force := getenv("CLICOLOR_FORCE"); {
	case options.NoColor || options.JSON || getenv("NO_COLOR") != "":
		return false
	case force != "" && force != "0":
		return true
	default:
		return terminal && getenv("TERM") != "dumb" && getenv("CLICOLOR") != "0"
	}
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && file != nil && term.IsTerminal(int(file.Fd()))
}

func columns(stream any) int {
	if file, ok := stream.(*os.File); ok {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return 80
}

// JSON reports whether answers are JSON.
func (u *UI) JSON() bool { return u.json }

// Stdout is where answers go that are neither tables nor JSON.
func (u *UI) Stdout() io.Writer { return u.stdout }

// Stderr takes text that appears above a running progress line.
func (u *UI) Stderr() io.Writer { return stderr{u} }

type stderr struct{ u *UI }

func (w stderr) Write(p []byte) (int, error) {
	w.u.mu.Lock()
	defer w.u.mu.Unlock()
	w.u.clear()
	n, err := w.u.stderr.Write(p)
	w.u.draw()
	return n, err
}

// Printf writes a line of the answer to standard output. Untrusted arguments
// must have gone through Safe.
func (u *UI) Printf(format string, args ...any) {
	// A closed standard output is noticed by the program as SIGPIPE.
	_, _ = fmt.Fprintf(u.stdout, format+"\n", args...)
}

// Infof tells the person on standard error, as `rootcell: …`.
func (u *UI) Infof(format string, args ...any) {
	u.message("rootcell: ", fmt.Sprintf(format, args...))
}

// Warnf is Infof for something that needs attention.
func (u *UI) Warnf(format string, args ...any) {
	u.message("rootcell: "+u.style(u.colorErr, Yellow, "warning:")+" ", fmt.Sprintf(format, args...))
}

// Hintf says what to do next.
func (u *UI) Hintf(format string, args ...any) {
	u.message(u.style(u.colorErr, Cyan, "hint:")+" ", fmt.Sprintf(format, args...))
}

// message writes text with the prefix on every line of it.
func (u *UI) message(prefix, text string) {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		b.WriteString(prefix + Safe(line) + "\n")
	}
	_, _ = io.WriteString(stderr{u}, b.String())
}

// style is a select graphic rendition parameter.
type style string

// Styles that show on dark and light backgrounds.
const (
	Bold   style = "1"
	Red    style = "31"
	Green  style = "32"
	Yellow style = "33"
	Cyan   style = "36"
)

// Style marks text for standard output, when that shows styles.
func (u *UI) Style(s style, text string) string { return u.style(u.colorOut, s, text) }

func (u *UI) style(on bool, s style, text string) string {
	if !on {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}
