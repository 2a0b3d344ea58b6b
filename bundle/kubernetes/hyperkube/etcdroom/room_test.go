package etcdroom

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const quota = 1000

// member is an etcd of which a test says how full it is, and which notes what is done to it.
type member struct {
	size, data, history int64
	refuses             bool
	done                []string
	err                 error
}

func (m *member) Space() (int64, int64, bool) { return m.size, m.data + m.history, m.refuses }

func (m *member) Compact(context.Context) error {
	m.history, m.done = 0, append(m.done, "compact")
	return m.err
}

func (m *member) Defrag() error {
	m.size, m.done = m.data+m.history, append(m.done, "defrag")
	return m.err
}

func (m *member) Disarm(context.Context) error {
	m.refuses, m.done = false, append(m.done, "disarm")
	return m.err
}

func TestRoomIsMadeWhereItIsWorthIt(t *testing.T) {
	for name, test := range map[string]struct {
		m    member
		want string
	}{
		"small":                        {member{size: 100, data: 10}, ""},
		"large and in use":             {member{size: 950, data: 900}, ""},
		"large and half free":          {member{size: 900, data: 400}, "defrag"},
		"large, history counts":        {member{size: 900, data: 400, history: 400}, ""},
		"refuses, data deleted":        {member{size: 1000, data: 300, history: 600, refuses: true}, "compact defrag disarm"},
		"refuses, all of it is data":   {member{size: 1000, data: 950, refuses: true}, "compact"},
		"refuses, file smaller by now": {member{size: 200, data: 100, refuses: true}, "compact defrag disarm"},
	} {
		if err := look(t.Context(), &test.m, quota, slog.New(slog.DiscardHandler)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Join(test.m.done, " "); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestWhatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{size: 1000, data: 300, refuses: true, err: errors.New("busy")}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { Keep(ctx, m, quota, 10*time.Second, slog.New(slog.DiscardHandler)); close(done) }()
		synctest.Wait()
		if !m.refuses || !slices.Equal(m.done, []string{"compact"}) {
			t.Errorf("did %v with errors, want it to stop at the first", m.done)
		}
		m.err = nil
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if m.refuses {
			t.Errorf("did %v, and it still refuses", m.done)
		}
		cancel()
		<-done
	})
}

func TestAProblemIsToldInSteps(t *testing.T) {
	for _, test := range []struct {
		data    int64
		refuses bool
		want    string
	}{{0, false, ""}, {699, false, ""}, {700, false, "70 %"}, {749, false, "70 %"}, {750, false, "75 %"}, {990, true, "refuses"}} {
		got := Problem(&member{data: test.data, refuses: test.refuses}, quota)
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%d of %d, refuses %v: got %q, want %q", test.data, quota, test.refuses, got, test.want)
		}
	}
}

func TestTheQuotaFollowsTheVolume(t *testing.T) {
	for filesystem, want := range map[int64]int64{0: 256 << 20, 2 << 30: 512 << 20, 8 << 30: 2 << 30, 1 << 40: 4 << 30} {
		if got := Quota(filesystem); got != want {
			t.Errorf("of %d: got %d, want %d", filesystem, got, want)
		}
	}
}
