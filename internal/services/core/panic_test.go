package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/kernel"
)

// TestWhatAPanicInterruptedIsTakenBack has the panic come after some instances were stopped and others were minted.
func TestWhatAPanicInterruptedIsTakenBack(t *testing.T) {
	d := newDriver()
	for _, line := range []string{`deploy /bad {"cmd":"x","instances":3} /good {"cmd":"x"}`, "run all",
		`deploy /bad {"cmd":"y"} /good {"cmd":"y"}`} {
		if err := d.command(line); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(line, `"y"`) {
			d.settle()
		}
	}
	minted := 0
	mint := func(app string) kernel.InstanceID {
		if minted++; app == "/bad" && minted > 2 {
			panic("planted")
		}
		return kernel.InstanceID(fmt.Sprint("j", minted))
	}
	for _, launch := range Decide(d.s, d.now, mint).Launch {
		if launch.App.ID == "/bad" {
			t.Errorf("launches %v, want none of /bad", launch.Groups)
		}
	}
	if got := d.s.Instances("/bad"); len(got) != 3 || slices.ContainsFunc(got,
		func(i *Instance) bool { return i.Waiting || i.Stopping }) {
		t.Errorf("instances: got %v, want the three that run, none stopping", got)
	}
	if again := Decide(d.s, d.now, mint); slices.ContainsFunc(again.Launch,
		func(l Launch) bool { return l.App.ID == "/bad" }) || len(again.Aside) != 0 {
		t.Errorf("decided again: got %+v, want nothing of /bad", again)
	}
	d.settle()
	if d.s.Apps["/good"] == nil || len(d.s.Instances("/good")) == 0 {
		t.Error("the other app: has no instances")
	}
	minted = -1000
	d.s.Cancel(d.s.Deployments[0])
	if err := d.command(`deploy /bad {"cmd":"z"}`); err != nil {
		t.Fatal(err)
	}
	back := Decide(d.s, d.now, mint)
	if len(back.Launch) == 0 || len(d.s.Alarms()) != 0 {
		t.Errorf("after another version: got %+v, alarms %v, want launches and no alarms", back, d.s.Alarms())
	}
}
