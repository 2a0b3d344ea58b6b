package invariant

import "fmt"

// ID is an invariant's number in the catalogue of the package comment.
type ID string

// The invariants that are checked here, by their numbers.
const (
	I5  ID = "I5"  // upper bound of live instances
	I7  ID = "I7"  // convergence after faults
	I8  ID = "I8"  // identity of processes
	I10 ID = "I10" // terminal states absorb
	I11 ID = "I11" // no orphans
	I12 ID = "I12" // intent before act
	I13 ID = "I13" // capacity and quota
	I14 ID = "I14" // uniqueness
	I19 ID = "I19" // fencing
	I41 ID = "I41" // rights of priorities
	I42 ID = "I42" // membership
)

// Violation is one broken invariant with the facts that show it. It is an error.
type Violation struct {
	ID    ID
	Facts string // one sentence with names and numbers
}

// Error is the number and the facts: "I13: agent a1 has 5 cpus guaranteed of 4 cpus at revision 12".
func (v Violation) Error() string { return string(v.ID) + ": " + v.Facts }

func violated(id ID, format string, args ...any) []Violation {
	return []Violation{{ID: id, Facts: fmt.Sprintf(format, args...)}}
}
