package placement

import "slices"

// field is a column of the machines: which value of an attribute each has. It is there while a constraint asks for it.
type field struct {
	name    string
	ids     map[string]int32 // of values
	values  []value
	of      []int32   // value of each machine, -1 for none
	has     set       // machines with any value
	held    int       // values that some machine has
	edition int       // rises with every change of a machine's value
	filters []*filter // that look at it
	tallies int       // that count by it
}

// value is one value of a field and who has it.
type value struct {
	text     string
	machines []int32
	set      *set // the same, if they are many
}

// manyMachines is from how many machines on a value has a set of its own.
const manyMachines = 64

// field is the column of a name.
func (p *Pool) field(name string) *field {
	f := p.fields[name]
	if f == nil {
		f = &field{name: name, ids: map[string]int32{}}
		p.fields[name] = f
		for i := range p.machines {
			f.update(int32(i), &p.machines[i].Machine)
		}
	}
	return f
}

// leave forgets a column that nobody asks for any more.
func (p *Pool) leave(f *field) {
	if len(f.filters) == 0 && f.tallies == 0 {
		delete(p.fields, f.name)
	}
}

// update reads what machine i has.
func (f *field) update(i int32, m *Machine) {
	now := int32(-1)
	if text, ok := m.field(f.name); ok {
		now = f.id(text)
	}
	fresh := len(f.of) <= int(i)
	if fresh {
		f.of = append(f.of, -1) // machines come one by one
	}
	was := f.of[i]
	if was == now && !fresh {
		return
	}
	f.edition++
	f.of[i] = now
	f.has.put(i, now >= 0)
	if was >= 0 {
		if f.values[was].remove(i); len(f.values[was].machines) == 0 {
			f.held--
		}
	}
	if now >= 0 {
		if f.values[now].add(i); len(f.values[now].machines) == 1 {
			f.held++
		}
	}
	for _, filter := range f.filters {
		filter.update(i)
	}
}

func (f *field) id(text string) int32 {
	id, ok := f.ids[text]
	if !ok {
		id = int32(len(f.values))
		f.ids[text] = id
		f.values = append(f.values, value{text: text})
	}
	return id
}

func (v *value) add(i int32) {
	v.machines = append(v.machines, i)
	if v.set != nil {
		v.set.put(i, true)
	} else if len(v.machines) >= manyMachines {
		v.set = &set{}
		for _, i := range v.machines {
			v.set.put(i, true)
		}
	}
}

func (v *value) remove(i int32) {
	at := slices.Index(v.machines, i)
	v.machines = slices.Delete(v.machines, at, at+1)
	if v.set != nil {
		v.set.put(i, false)
	}
}

// mark has all machines with the value in a set, or none.
func (v *value) mark(s *set, in bool) {
	if v.set != nil {
		s.putAll(v.set, in)
		return
	}
	for _, i := range v.machines {
		s.put(i, in)
	}
}
