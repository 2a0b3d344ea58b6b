package exit

import (
	"errors"
	"fmt"
)

// The codes, as docs/cli.md has them.
const (
	OK          = 0
	Failed      = 1 // the request was understood and did not succeed
	BadUsage    = 2 // the command line is wrong
	NotFound    = 3 // there is no such thing
	Conflict    = 4 // something else is in the way: a running deployment, an id that exists
	Denied      = 5 // no token, or not allowed
	Timeout     = 6 // --wait gave up
	Unreachable = 7 // no datacenter answers
)

// Error is a failure with its code and what to do next.
type Error struct {
	Code    int
	Message string
	Next    string // what to try, mostly a command line; may be empty
}

// Error implements error: the message alone.
func (e *Error) Error() string { return e.Message }

// Usage is an error of the command line.
func Usage(next, format string, args ...any) error {
	return &Error{Code: BadUsage, Message: fmt.Sprintf(format, args...), Next: next}
}

// Is reports whether an error has a code.
func Is(err error, code int) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == code
}

// Status ends a command with a code and without a word: the code of a program that it ran, which has spoken for itself.
type Status int

// Error implements error.
func (s Status) Error() string { return fmt.Sprintf("exit code %d", int(s)) }

// Code is the code that an error ends a command with.
func Code(err error) int {
	if err == nil {
		return OK
	}
	if s, ok := errors.AsType[Status](err); ok {
		return int(s)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Failed
}
