package placement

import "slices"

// field is a column of the machines: which value of an attribute each has. It is there while a constraint asks for it.
type field struct {
	name     string
	ids      map[string]int32 // of values
	values   []value
	of       []int32 // value of each machine, -1 for none; not longer than it has to be
	machines int     // there are
	has      set     // machines with any value
	held     int     // values that some open machine has
	edition  int     // rises when a machine gets another value
	filters  []*filter
	tallies  []*tally
}

// value is one value of a field and who has it.
type value struct {
	text     string
	machines []int32
	open     int  // of them may be given instances
	set      *set // all of them, if they are many
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
			f.update(int32(i), &p.machines[i].Machine, p.open.has(int32(i)))
		}
	}
	return f
}

// leave forgets a column that nobody asks for any more.
func (p *Pool) leave(f *field) {
	if len(f.filters)+len(f.tallies) == 0 {
		delete(p.fields, f.name)
	}
}

// at is the value of machine i, -1 for none.
func (f *field) at(i int32) int32 {
	if int(i) < len(f.of) {
		return f.of[i]
	}
	return -1
}

// update reads what machine i, which is new or not, has.
func (f *field) update(i int32, m *Machine, open bool) {
	was, now := f.at(i), int32(-1)
	if text, ok := m.field(f.name); ok {
		now = f.id(text)
	}
	fresh := int(i) >= f.machines
	f.machines = max(f.machines, int(i)+1)
	if was == now && !fresh {
		return
	}
	if was != now {
		for len(f.of) <= int(i) {
			f.of = append(f.of, -1)
		}
		f.opened(i, open, false)
		f.of[i] = now
		f.has.put(i, now >= 0)
		if was >= 0 {
			f.values[was].remove(i)
		}
		if now >= 0 {
			f.values[now].add(i)
		}
		f.opened(i, open, true)
	}
	if !fresh {
		f.edition++
	}
	for _, filter := range f.filters {
		filter.update(i)
	}
	for _, t := range f.tallies {
		t.came(i)
	}
}

// opened notes that an open machine counts for its value, or no longer.
func (f *field) opened(i int32, open, in bool) {
	v := f.at(i)
	if v < 0 || !open {
		return
	}
	value := &f.values[v]
	was := value.open
	if value.open++; !in {
		value.open -= 2
	}
	if (was > 0) == (value.open > 0) {
		return
	}
	if f.held++; !in {
		f.held -= 2
	}
	for _, t := range f.tallies {
		t.hold(v, in)
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
