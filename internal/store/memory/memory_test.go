package memory_test

import (
	"testing"

	"github.com/marinaos/marina/internal/store/memory"
	"github.com/marinaos/marina/internal/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Store { return memory.New() })
}
