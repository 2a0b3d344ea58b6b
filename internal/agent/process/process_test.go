package process_test

import (
	"testing"

	"github.com/marinaos/marina/internal/agent"
	"github.com/marinaos/marina/internal/agent/process"
	"github.com/marinaos/marina/internal/agent/runtimetest"
)

func TestProcessesAreARuntime(t *testing.T) {
	dirs := map[string]string{}
	runtimetest.Run(t, runtimetest.Options{
		Open: func(t *testing.T) agent.Runtime {
			if dirs[t.Name()] == "" {
				dirs[t.Name()] = t.TempDir()
			}
			rt, err := process.New(dirs[t.Name()])
			if err != nil {
				t.Fatal(err)
			}
			return rt
		},
		Container: func(_ *testing.T, c agent.Container) agent.Container { return c },
		Missing:   "registry.example/nobody:1",
	})
}
