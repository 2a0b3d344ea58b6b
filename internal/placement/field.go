package placement

import "slices"

// field is a column of the machines: the value that each has of one attribute. It exists while a constraint needs it.
type field struct {
	name          string
	ids           map[string]int32 // of values
	values        []value
	machineValues []int32 // value of each machine, -1 for none; not longer than it has to be
	machines      int     // there are
	has           set     // machines with any value
	openValues    int     // values that some open machine has
	edition       int     // rises when a machine gets another value
	filters       []*filter
	tallies       []*tally
}

// value is one value of a field and the machines that have it.
type value struct {
	text     string
	machines []int32
	open     int  // of them may be given instances
	set      *set // all of them; nil if they are few
}

// manyMachines is the number of machines from which on a value has a set of its own.
const manyMachines = 64

// fieldFor returns the column of a name.
func (p *Pool) fieldFor(name string) *field {
	f := p.fields[name]
	if f == nil {
		f = &field{name: name, ids: map[string]int32{}}
		p.fields[name] = f
		for i := range p.machines {
			f.updateMachine(int32(i), &p.machines[i].Machine, p.open.has(int32(i)))
		}
	}
	return f
}

// dropField forgets a column that no constraint needs any more.
func (p *Pool) dropField(f *field) {
	if len(f.filters)+len(f.tallies) == 0 {
		delete(p.fields, f.name)
	}
}

// valueOf returns the value of machine i, -1 for none.
func (f *field) valueOf(i int32) int32 {
	if int(i) < len(f.machineValues) {
		return f.machineValues[i]
	}
	return -1
}

// updateMachine reads the value of machine i, which may be new.
func (f *field) updateMachine(i int32, m *Machine, open bool) {
	was, now := f.valueOf(i), int32(-1)
	if text, ok := m.field(f.name); ok {
		now = f.valueID(text)
	}
	fresh := int(i) >= f.machines
	f.machines = max(f.machines, int(i)+1)
	if was == now && !fresh {
		return
	}
	if was != now {
		for len(f.machineValues) <= int(i) {
			f.machineValues = append(f.machineValues, -1)
		}
		f.countOpen(i, open, false)
		f.machineValues[i] = now
		f.has.setMember(i, now >= 0)
		if was >= 0 {
			f.values[was].removeMachine(i)
		}
		if now >= 0 {
			f.values[now].addMachine(i)
		}
		f.countOpen(i, open, true)
	}
	if !fresh {
		f.edition++
	}
	for _, filter := range f.filters {
		filter.updateMachine(i)
	}
	for _, t := range f.tallies {
		t.updateMachine(i)
	}
}

// countOpen counts machine i, if it is open, for its value, or no longer.
func (f *field) countOpen(i int32, open, in bool) {
	v := f.valueOf(i)
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
	if f.openValues++; !in {
		f.openValues -= 2
	}
	for _, t := range f.tallies {
		t.setValueOpen(v, in)
	}
}

func (f *field) valueID(text string) int32 {
	id, ok := f.ids[text]
	if !ok {
		id = int32(len(f.values))
		f.ids[text] = id
		f.values = append(f.values, value{text: text})
	}
	return id
}

func (v *value) addMachine(i int32) {
	v.machines = append(v.machines, i)
	if v.set != nil {
		v.set.setMember(i, true)
	} else if len(v.machines) >= manyMachines {
		v.set = &set{}
		for _, i := range v.machines {
			v.set.setMember(i, true)
		}
	}
}

func (v *value) removeMachine(i int32) {
	at := slices.Index(v.machines, i)
	v.machines = slices.Delete(v.machines, at, at+1)
	if v.set != nil {
		v.set.setMember(i, false)
	}
}

// markMachines adds all machines with the value to a set or removes them.
func (v *value) markMachines(s *set, in bool) {
	if v.set != nil {
		s.setMembers(v.set, in)
		return
	}
	for _, i := range v.machines {
		s.setMember(i, in)
	}
}
