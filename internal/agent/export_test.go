package agent

import (
	"context"
	"fmt"
	"strings"
)

// Stages names what instances are given, in order.
func Stages() (out []string) {
	for _, s := range append(fetching(), making()...) {
		out = append(out, stageName(s))
	}
	return out
}

func stageName(s stage) string { return strings.TrimPrefix(fmt.Sprintf("%T", s), "agent.") }

// AroundStages has the agent call around for each Prepare and Undo, which is to call do. It is for before Run.
func (a *Agent) AroundStages(around func(stage string, undo bool, do func() error) error) {
	for _, list := range [][]stage{a.fetching, a.making} {
		for i := range list {
			list[i] = surrounded{list[i], stageName(list[i]), around}
		}
	}
}

type surrounded struct {
	stage
	name   string
	around func(stage string, undo bool, do func() error) error
}

func (s surrounded) Prepare(ctx context.Context, g *instance) error {
	return s.around(s.name, false, func() error { return s.stage.Prepare(ctx, g) })
}

func (s surrounded) Undo(ctx context.Context, g *instance) error {
	return s.around(s.name, true, func() error { return s.stage.Undo(ctx, g) })
}
