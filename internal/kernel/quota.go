package kernel

// Quota bounds what the groups of a role may be guaranteed together. Roles form a tree by their paths: what "/prod/web" uses
// counts against "/prod" and "/" as well.
type Quota struct {
	Role  string    `json:"role"`  // "/prod"
	Limit Resources `json:"limit"` // a component of Unlimited (-1) is not bounded; zero allows nothing
}

// QuotaView is a role with its quota and what counts against it.
type QuotaView struct {
	Role  string     `json:"role"`
	Limit *Resources `json:"limit,omitempty"` // nil: the role has no quota of its own
	Used  Resources  `json:"used"`
}

// Within returns the names of the components in which used plus more exceeds the quota: none means it fits.
func (q Quota) Within(used, more Resources) []string {
	sum := used.Add(more)
	limit := q.Limit
	for _, c := range []struct{ limit, sum *int64 }{{&limit.MilliCPU, &sum.MilliCPU}, {&limit.Mem, &sum.Mem},
		{&limit.Disk, &sum.Disk}, {&limit.GPUs, &sum.GPUs}} {
		if *c.limit == Unlimited {
			*c.sum = Unlimited
		}
	}
	return sum.Lacking(limit)
}
