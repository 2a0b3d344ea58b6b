package kernel

// Quota says what the instances of a role get together. Roles form a tree by their paths: what "/prod/web" uses counts
// against "/prod" and "/" as well.
type Quota struct {
	Role string `json:"role"` // "/prod"

	// Guarantee is held for the role: others get none of it but on loan, for work with a Priority below zero.
	Guarantee Resources `json:"guarantee,omitzero"`
	Limit     Resources `json:"limit"` // a component of Unlimited (-1) is not bounded; zero allows nothing

	// Weight is the role's share beside its siblings while there is not enough for all that wait: one with 2 gets
	// twice as much as one with 1. Zero is 1.
	Weight float64 `json:"weight,omitempty"`
}

// QuotaView is a role with its quota, what counts against it, and what waits.
type QuotaView struct {
	Role        string     `json:"role"`
	Guarantee   *Resources `json:"guarantee,omitempty"` // nil: none
	Limit       *Resources `json:"limit,omitempty"`     // nil: the role has no quota of its own
	Weight      float64    `json:"weight"`
	Used        Resources  `json:"used"`
	Preemptible Resources  `json:"lent,omitzero"` // of it: by work with a priority below zero
	Held        Resources  `json:"held,omitzero"` // of its guarantee and those below it: not used yet
	// the largest of what it uses as a fraction of what all machines have
	Share    float64   `json:"share"`
	Dominant string    `json:"dominant,omitempty"` // which resource that is: "cpus", "mem", "disk", "gpus"
	Waiting  int       `json:"waiting,omitempty"`  // instances, those of roles below it included
	Asks     Resources `json:"asks,omitzero"`      // what all of them need
	Why      string    `json:"why,omitempty"`      // why the next of its own waits
}

// ReservedPart is an amount of one machine that is kept for a role and those below it, whether they use it or not.
type ReservedPart struct {
	Role   string    `json:"role"`
	Amount Resources `json:"amount"`
}

// NoLimit is a Limit that bounds nothing.
var NoLimit = Resources{Unlimited, Unlimited, Unlimited, Unlimited}

// Over returns the names of the components of which used is more than the limit.
func (q Quota) Over(used Resources) (over []string) {
	limit := q.Limit.Parts()
	for c, n := range used.Parts() {
		if limit[c] != Unlimited && n > limit[c] {
			over = append(over, Components[c])
		}
	}
	return over
}

// Within returns the names of the components that more asks for and in which used plus more exceeds the quota: none
// means it fits. What is exceeded already and not asked for stands in nobody's way.
func (q Quota) Within(used, more Resources) (over []string) {
	limit, sum := q.Limit.Parts(), used.Add(more).Parts()
	for c, n := range more.Parts() {
		if n > 0 && limit[c] != Unlimited && sum[c] > limit[c] {
			over = append(over, Components[c])
		}
	}
	return over
}
