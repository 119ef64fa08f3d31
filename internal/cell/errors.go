package cell

import (
	"errors"
	"fmt"
)

// Exit codes of rootcell. Commands that run in the agent return the agent's own
// status, and ExitTransport when the way there broke.
const (
	ExitFailed      = 1
	ExitUsage       = 2
	ExitVerdict     = 3
	ExitInterrupted = 130
	ExitTransport   = 255
)

// Error is an error that decides the exit code of the command. Code is one of
// the Exit constants.
type Error struct {
	Code int
	Err  error
}

// Error returns the text of the wrapped error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the wrapped error.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode is the exit code for err: 0 for nil, the code of the outermost
// [Error], else ExitFailed.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ExitFailed
}

func usageError(format string, args ...any) error {
	return &Error{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}
