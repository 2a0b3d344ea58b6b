package testbed

import (
	"testing"
	"time"
)

// pollEvery is the pause between two looks of Until.
const pollEvery = 20 * time.Millisecond

// Until calls look until it returns nil, and fails the test with look's last error after limit. It, Eventually and Wait
// are the only ways in which tests on a testbed wait.
func Until(t testing.TB, limit time.Duration, what string, look func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := until(limit, look); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
	return time.Since(begin)
}

// Eventually is Until for looks that cost something: it makes pauses of so long between them.
func Eventually(t testing.TB, limit, every time.Duration, what string, look func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := Wait(limit, every, look); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
	return time.Since(begin)
}

func until(limit time.Duration, look func() error) error { return Wait(limit, pollEvery, look) }

// Wait is Eventually for whoever has no test to fail: it returns the last error.
func Wait(limit, every time.Duration, look func() error) error {
	end := time.Now().Add(limit)
	for {
		err := look()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(every) // between looks
	}
}

// Always calls look again and again for the given time, and fails the test when it returns an error: for what must not
// happen.
func Always(t testing.TB, during time.Duration, what string, look func() error) {
	t.Helper()
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(pollEvery) { // between looks
		if err := look(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}
