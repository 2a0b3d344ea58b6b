package process_test

import (
	"testing"

	"github.com/marinaos/marina/internal/runtime"
	"github.com/marinaos/marina/internal/runtime/process"
	"github.com/marinaos/marina/internal/runtime/runtimetest"
)

func TestProcessesAreARuntime(t *testing.T) {
	dirs := map[string]string{}
	runtimetest.Run(t, runtimetest.Options{
		Open: func(t *testing.T) runtime.Runtime {
			if dirs[t.Name()] == "" {
				dirs[t.Name()] = t.TempDir()
			}
			rt, err := process.New(dirs[t.Name()])
			if err != nil {
				t.Fatal(err)
			}
			return rt
		},
		Container: func(_ *testing.T, c runtime.Container) runtime.Container { return c },
		Missing:   "registry.example/nobody:1",
	})
}
