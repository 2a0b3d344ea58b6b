package runtimetest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/runtime"
)

// suite is one test's world.
type suite struct {
	t   *testing.T
	o   Options
	rt  runtime.Runtime
	dir string
	ids []string
}

func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	s.t.Cleanup(cancel)
	return ctx
}

func (s *suite) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for _, id := range s.ids {
		if err := s.rt.Remove(ctx, id); err != nil {
			s.t.Errorf("remove %s: %v", id, err)
		}
	}
	left, err := s.rt.Containers(ctx)
	if err != nil || len(left) != 0 {
		s.t.Errorf("after all were removed: got %v, %v, want none", left, err)
	}
}

func (s *suite) file(id, name string) string { return filepath.Join(s.dir, id+"."+name) }

// make creates a container that runs a shell command.
func (s *suite) make(id, shell string, change ...func(*runtime.Container)) {
	s.t.Helper()
	c := runtime.Container{ID: id, Shell: shell, Labels: map[string]string{runtime.LabelTask: "task of " + id},
		Env: []string{"COLOUR=blue and green"}, Stdout: s.file(id, "stdout"), Stderr: s.file(id, "stderr"), MilliCPU: 100}
	c = s.o.Container(s.t, c)
	for _, f := range change {
		f(&c)
	}
	s.ids = append(s.ids, id)
	if err := s.rt.Create(s.ctx(), c); err != nil {
		s.t.Fatalf("create %s: %v", id, err)
	}
}

func (s *suite) start(id string) runtime.Process {
	s.t.Helper()
	p, err := s.rt.Start(s.ctx(), id)
	if err != nil {
		s.t.Fatalf("start %s: %v", id, err)
	}
	if p.PID <= 0 || time.Since(p.Started).Abs() > time.Minute {
		s.t.Errorf("start %s: got pid %d started %s, want a pid and a time close to now", id, p.PID, p.Started)
	}
	return p
}

// exit waits for a container's exit.
func (s *suite) exit(exits <-chan runtime.Exit, id string) runtime.Exit {
	s.t.Helper()
	deadline := time.After(limit)
	for {
		select {
		case e, ok := <-exits:
			if !ok {
				s.t.Fatalf("exits ended before that of %s", id)
			}
			if e.ID == id {
				return e
			}
		case <-deadline:
			s.t.Fatalf("no exit of %s within %s", id, limit)
		}
	}
}

// says waits until a file contains something.
func (s *suite) says(name, want string) {
	s.t.Helper()
	for began := time.Now(); ; {
		b, _ := os.ReadFile(name)
		if strings.Contains(string(b), want) {
			return
		}
		if time.Since(began) > limit {
			s.t.Fatalf("%s: got %q, want %q in it", filepath.Base(name), b, want)
		}
		time.Sleep(5 * time.Millisecond) // between looks
	}
}

func (s *suite) find(id string) (runtime.Found, bool) {
	s.t.Helper()
	all, err := s.rt.Containers(s.ctx())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range all {
		if f.ID == id {
			return f, true
		}
	}
	return runtime.Found{}, false
}
