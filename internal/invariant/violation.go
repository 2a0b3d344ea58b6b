package invariant

import "fmt"

// ID names an invariant: its number in the catalogue of the package comment, and the noun for it.
type ID string

// The invariants that are checked here, by their numbers.
const (
	I5UpperBound     ID = "I5 upper bound"
	I7Converged      ID = "I7 convergence"
	I8OneProcess     ID = "I8 one process"
	I10TerminalStays ID = "I10 terminal states"
	I11NoOrphan      ID = "I11 orphans"
	I12IntentFirst   ID = "I12 intent before act"
	I13Capacity      ID = "I13 capacity and quota"
	I14Exclusive     ID = "I14 one holder"
	I19Fenced        ID = "I19 fencing"
	I41Preemption    ID = "I41 rights of priorities"
	I42Removed       ID = "I42 membership"
)

// Violation is one broken invariant with the facts that show it. It is an error.
type Violation struct {
	ID    ID
	Facts string // one sentence with names and numbers
}

// Error is the number and the facts: "I13 capacity and quota: agent a1 has 5 cpus guaranteed of 4 cpus at revision 12".
func (v Violation) Error() string { return string(v.ID) + ": " + v.Facts }

func violated(id ID, format string, args ...any) []Violation {
	return []Violation{{ID: id, Facts: fmt.Sprintf(format, args...)}}
}
