package ended

import "github.com/marinaos/marina/internal/kernel"

// pastKept bounds the records that can still be shown.
const pastKept = 2048

// Past keeps the records of the last instances that ended under this leader.
type Past struct {
	records []*kernel.Record // as a ring once it is full
	next    int
}

// Add keeps a record, in place of the oldest when there are too many.
func (p *Past) Add(r *kernel.Record) {
	if len(p.records) < pastKept {
		p.records = append(p.records, r)
		return
	}
	p.records[p.next] = r
	p.next = (p.next + 1) % pastKept
}

// Find finds a task among the records.
func (p *Past) Find(id kernel.TaskID) (r *kernel.Record, task int, ok bool) {
	for _, r := range p.records {
		if k := r.Find(id); k >= 0 {
			return r, k, true
		}
	}
	return nil, 0, false
}
