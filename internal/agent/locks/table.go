package locks

import "sync"

// Table is a set of readers-writer locks by name. The zero value is ready to use; it must not be copied.
type Table struct {
	mu sync.Mutex
	m  map[string]*lock // those that somebody holds or waits for; guarded by mu
}

type lock struct {
	sync.RWMutex
	users int // who hold it or wait for it; guarded by Table.mu
}

// Lock waits until nobody else has the name, and returns what gives it back.
func (t *Table) Lock(name string) (unlock func()) {
	l := t.enter(name)
	l.Lock()
	return func() {
		l.Unlock()
		t.leave(name, l)
	}
}

// RLock waits until nobody has the name for itself alone, and returns what gives it back.
func (t *Table) RLock(name string) (unlock func()) {
	l := t.enter(name)
	l.RLock()
	return func() {
		l.RUnlock()
		t.leave(name, l)
	}
}

func (t *Table) enter(name string) *lock {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		t.m = map[string]*lock{}
	}
	l := t.m[name]
	if l == nil {
		l = new(lock)
		t.m[name] = l
	}
	l.users++
	return l
}

func (t *Table) leave(name string, l *lock) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(t.m, name)
	}
}

// Len counts the names that are held or waited for.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.m)
}
