package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Answer writes a JSON object {"schemaVersion":1,…} with the fields of v, which
// must encode as an object, to standard output. Control characters are escaped
// by JSON itself, those of C1 and format characters by this function, since
// the output may be a terminal.
func (u *UI) Answer(v any) error {
	text, err := envelope(v)
	if err != nil {
		return err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, text, "", "  "); err != nil {
		return fmt.Errorf("encoding answer: %w", err)
	}
	return u.line(indented.Bytes())
}

// AnswerLine is Answer on a single line, for streams of answers (JSON lines).
func (u *UI) AnswerLine(v any) error {
	text, err := envelope(v)
	if err != nil {
		return err
	}
	return u.line(text)
}

func (u *UI) line(text []byte) error {
	if _, err := u.stdout.Write(append(escapeJSON(text), '\n')); err != nil {
		return fmt.Errorf("writing answer: %w", err)
	}
	return nil
}

func envelope(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding answer: %w", err)
	}
	fields, isObject := bytes.CutPrefix(bytes.TrimSpace(b.Bytes()), []byte("{"))
	if !isObject {
		return nil, fmt.Errorf("encoding answer: %T is no JSON object", v)
	}
	head := fmt.Appendf(nil, `{"schemaVersion":%d`, SchemaVersion)
	if !bytes.HasPrefix(fields, []byte("}")) {
		head = append(head, ',')
	}
	return append(head, fields...), nil
}

// escapeJSON writes what is not harmless on a terminal as \u escapes. Outside
// of strings JSON has ASCII only, so that every such character is in a string.
func escapeJSON(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for _, r := range string(text) {
		switch {
		case r < 0x80 && r != 0x7f || harmless(r):
			out = append(out, string(r)...)
		case r <= 0xffff:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
	}
	return out
}

// Hinter is implemented by errors that know what to do next.
type Hinter interface{ Hint() string }

// WithHint adds a line that says what to do next to an error.
func WithHint(err error, format string, args ...any) error {
	return &hinted{err, fmt.Sprintf(format, args...)}
}

type hinted struct {
	error
	hint string
}

func (h *hinted) Hint() string  { return h.hint }
func (h *hinted) Unwrap() error { return h.error }

// Error reports what went wrong: on standard error as `rootcell: …` and
// `hint: …` lines, and with JSON on standard output as
// {"schemaVersion":1,"error":{"message":…,"hint":…,"exitCode":…}}.
func (u *UI) Error(err error, exitCode int) {
	var hint string
	if h := Hinter(nil); errors.As(err, &h) {
		hint = h.Hint()
	}
	if u.json {
		type failure struct {
			Message  string `json:"message"`
			Hint     string `json:"hint,omitempty"`
			ExitCode int    `json:"exitCode"`
		}
		// Standard output may be gone, but the exit status says it as well.
		_ = u.Answer(struct {
			Error failure `json:"error"`
		}{failure{err.Error(), hint, exitCode}})
		return
	}
	prefix := u.style(u.colorErr, Red, "rootcell:") + " "
	u.message(prefix, err.Error())
	if hint != "" {
		u.Hintf("%s", hint)
	}
}

// Question is asked on standard error. The answer is false unless the person
// types y or yes. Where nobody can answer (no terminal, or JSON) it does not
// wait and returns ErrNobody.
func (u *UI) Question(text string) (bool, error) {
	if u.json || !isTerminal(u.stdin) || !isTerminal(u.stderr) {
		return false, ErrNobody
	}
	if _, err := io.WriteString(stderr{u}, Safe(text)+" [y/N] "); err != nil {
		return false, fmt.Errorf("asking: %w", err)
	}
	answer, err := readLine(u.stdin)
	if err != nil {
		return false, fmt.Errorf("reading the answer: %w", err)
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
}

// ErrNobody means that a question was not asked because nobody can answer.
var ErrNobody = errors.New("nobody can be asked here: standard input or standard error is no terminal; use --yes")

// readLine takes bytes one by one, so that nothing behind the line is lost.
func readLine(r io.Reader) (string, error) {
	var line []byte
	one := make([]byte, 1)
	for len(line) < 1024 {
		n, err := r.Read(one)
		if n > 0 {
			if one[0] == '\n' {
				return string(line), nil
			}
			line = append(line, one[0])
		}
		if err == io.EOF && len(line) > 0 {
			return string(line), nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", errors.New("the answer is too long")
}
