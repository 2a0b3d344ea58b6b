package stories

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

// TestAnUpgradeFromTheLastReleaseRestartsNoTask starts a datacenter with the last release's program, has apps run and
// wait in it, and replaces the program as docs/operations.md says: by `marina up` of the new one. Then it goes back,
// and forward again.
func TestAnUpgradeFromTheLastReleaseRestartsNoTask(t *testing.T) {
	w := *workshop(t)
	newer := w.Marina
	w.Marina = lastRelease(t, &w)
	h, err := w.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	c := attend(t, h) // with a token that the last release signed
	s := &tenure{T: t, h: h, c: c, id: "/stays"}
	c.Deploy(t, h.ProbeApp(s.id, 3).With(testbed.Definition{"env": testbed.Definition{"VERSION": "1"}}))
	h.Must(t, "quota", "set", "/small", "--mem", "48") // of one task, and not of two
	c.Deploy(t, h.ProbeApp("/small/beside", 1))
	c.Ask(t, "POST", testbed.Marathon+"/apps", h.ProbeApp("/small/waits", 1), 201, nil)
	if err := h.Witness(); err != nil {
		t.Fatal(err)
	}
	s.was, s.vip = running(t, h, s.id), c.VIP(t, s.id)
	beside := running(t, h, "/small/beside")

	caller := testbed.NewCaller(s.vip, 10*time.Millisecond, nil)
	s.become(newer)
	report(t, "while the last release was replaced", caller.Stop())
	s.answers("after the upgrade")
	s.waitsStill("after the upgrade", "/small/waits")
	if now := running(t, h, "/small/beside"); !slices.Equal(now, beside) {
		t.Errorf("after the upgrade: the tasks in the group were %v, are %v", beside, now)
	}
	s.goesOn()

	s.become(w.Marina) // which reads what the new one wrote
	s.answers("after going back")
	s.waitsStill("after going back", "/small/waits")
	s.become(newer)
	s.answers("after going forward again")
	w.Marina = newer // it takes the datacenter away
	c.Remove(t, "/small/beside")
	c.Settle(t, "/small/waits", 60*time.Second)
}

// lastRelease is its program. Where the history is not there the story is skipped: a shallow clone or a tarball.
func lastRelease(t *testing.T, w *testbed.Workshop) string {
	t.Helper()
	program, err := w.Release()
	if errors.Is(err, testbed.ErrNoHistory) {
		t.Skipf("NOT CHECKED, the upgrade: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// become replaces the datacenter's program, and judges that the tasks did not notice.
func (s *tenure) become(program string) {
	s.Helper()
	s.h.Become(s.T, program)
	s.stayed("with " + program)
}

// waitsStill judges that an app waits for what its group may not have yet.
func (s *tenure) waitsStill(when, id string) {
	s.Helper()
	if a := s.c.App(s.T, id); a.TasksRunning != 0 || len(a.Deployments) != 1 {
		s.Errorf("%s: %s has %d tasks and %d deployments, want none and the one it began with",
			when, id, a.TasksRunning, len(a.Deployments))
	}
}

// goesOn scales what the last release deployed, which keeps its tasks, and deploys another app.
func (s *tenure) goesOn() {
	s.Helper()
	s.c.Ask(s.T, "PATCH", testbed.Marathon+"/apps"+s.id, testbed.Definition{"instances": 4}, 200, nil)
	s.c.Settle(s.T, s.id, 60*time.Second)
	now := running(s.T, s.h, s.id)
	for _, p := range s.was {
		if !slices.Contains(now, p) {
			s.Errorf("scaling up after the upgrade replaced %v: %v run", p, now)
		}
	}
	if len(now) != 4 {
		s.Errorf("%d tasks after scaling to 4", len(now))
	}
	s.was = now
	versions := s.c.Ask(s.T, "GET", testbed.Marathon+"/apps"+s.id+"/versions", nil, 200, nil)
	if n := strings.Count(string(versions.Body), "T"); n < 2 {
		s.Errorf("versions after the upgrade: %v, want those of before too", versions)
	}
	s.c.Deploy(s.T, s.h.ProbeApp("/newer", 1))
	s.c.Remove(s.T, "/newer")
}
