package etcd

import (
	"log/slog"
	"testing"
)

// logTo sends etcd's warnings to the test's output.
func logTo(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }
