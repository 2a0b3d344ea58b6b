package kernel

// Severity says how much a Finding matters.
type Severity string

// The severities.
const (
	Good    Severity = "ok"
	Warning Severity = "warning" // it works, with a drawback
	Fatal   Severity = "error"   // it will not work
)

// Finding is one thing a check of a machine found.
type Finding struct {
	Severity Severity `json:"severity"`
	What     string   `json:"what"`         // "kernel 6.18", "port 8443 is taken by nginx (pid 812)"
	Do       string   `json:"do,omitempty"` // what the operator can do about it, a command where possible
}
