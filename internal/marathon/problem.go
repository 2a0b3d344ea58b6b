package marathon

import "fmt"

// Problem is a refusal with the text that its asker sees.
type Problem struct {
	Kind error // of errdefs
	Text string
}

// Error is the text.
func (p *Problem) Error() string { return p.Text }

// Unwrap is the kind.
func (p *Problem) Unwrap() error { return p.Kind }

// Problemf makes a Problem of a kind.
func Problemf(kind error, format string, args ...any) error {
	return &Problem{kind, fmt.Sprintf(format, args...)}
}
