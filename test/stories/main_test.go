package stories

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/marinaos/marina/test/testbed"
)

// shop and shared are opened by the first story that needs them and closed after the last.
var (
	shop   = sync.OnceValues(testbed.OpenWorkshop)
	shared = sync.OnceValues(func() (*testbed.Datacenter, error) {
		w, err := shop()
		if err != nil {
			return nil, err
		}
		sharedOpen = true
		h, err := w.Open()
		if err != nil {
			return nil, err
		}
		o := h.Run("token", "create", "--ttl", "2s", "--quiet")
		shortLived = strings.TrimSpace(o.Out)
		return h, nil
	})
	sharedOpen bool
	shortLived string // a token that was good for two seconds when the shared datacenter was opened
)

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "4") // stories wait most of the time
	code := m.Run()
	if err := closeAll(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: the datacenter that stories shared:", err)
		code = 1
	}
	os.Exit(code)
}

func closeAll() error {
	var err error
	if sharedOpen {
		if h, herr := shared(); herr == nil {
			err = h.Close()
		}
	}
	if w, werr := shop(); werr == nil {
		err = errors.Join(err, w.Close())
	}
	return err
}

// workshop returns the programs and images; without, the test is skipped or fails.
func workshop(t *testing.T) *testbed.Workshop {
	t.Helper()
	w, err := shop()
	if errors.Is(err, testbed.ErrNotReal) && os.Getenv("MARINA_REQUIRE_REAL") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// datacenter is the one that stories share, and a client for it.
func datacenter(t *testing.T) (*testbed.Datacenter, *testbed.Client) {
	t.Helper()
	workshop(t)
	h, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return h, attend(t, h)
}

// own starts a datacenter for one story. It is taken away at the end, also of a story that failed.
func own(t *testing.T, flags ...string) (*testbed.Datacenter, *testbed.Client) {
	t.Helper()
	h, err := workshop(t).Open(flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, attend(t, h)
}

// attend gives a client, and has the processes' logs kept if the story fails.
func attend(t *testing.T, h *testbed.Datacenter) *testbed.Client {
	t.Helper()
	c, err := h.Client()
	if err != nil {
		t.Fatal(err)
	}
	h.KeepLogs(t)
	return c
}

// removeAfter removes an app when the story ends.
func removeAfter(t *testing.T, c *testbed.Client, id string) {
	t.Helper()
	t.Cleanup(func() { c.Remove(t, id) })
}
