package invariant

import "github.com/marinaos/marina/internal/kernel"

// Work is an instance, or what one is launched for, with what decides who makes way for whom.
type Work struct {
	Name     string
	Role     string // that pays: "/prod/web"
	Priority int
}

// Rights judges I41: an instance makes way only for work of a higher priority, which is of the same top-level group
// unless the instance has a priority below zero and the work has none.
func Rights(gone, stays Work) []Violation {
	lent := gone.Priority < 0 && stays.Priority >= 0
	if gone.Priority < stays.Priority && (lent || kernel.Tenant(gone.Role) == kernel.Tenant(stays.Role)) {
		return nil
	}
	return violated(I41Preemption, "%s of %s with priority %d makes way for %s of %s with priority %d",
		gone.Name, gone.Role, gone.Priority, stays.Name, stays.Role, stays.Priority)
}
