package agent_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

func TestInstanceRunsAndIsStopped(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.master.launch(specOf(`echo "$HOSTNAME_IS on $MESOS_SANDBOX"; exec sleep 600`), kernel.Assignment{ID: "web.1"})
	st := w.master.reaches("web.1.t0", kernel.Running)
	if c := w.containers(); len(c) != 1 || c[0].Process.PID != st.PID || !st.Healthy() {
		t.Errorf("got status %+v and containers %+v, want one with that pid, healthy", st, c)
	}
	w.master.end("web.1")
	st = w.master.reaches("web.1.t0", kernel.Killed)
	if st.Reason != kernel.ReasonKilled || st.Message != "scaled down" || st.Exit == nil || *st.Exit != 143 {
		t.Errorf("got %+v, want killed because scaled down, by TERM", st)
	}
	if c := w.containers(); len(c) != 0 || len(w.net.attached) != 0 {
		t.Errorf("after the end: got %+v attached %v, want nothing left", c, w.net.attached)
	}
	var states []kernel.State
	for i, s := range w.master.history["web.1.t0"] {
		if s.Seq != uint64(i+1) {
			t.Errorf("status %d has number %d", i+1, s.Seq)
		}
		states = append(states, s.State)
	}
	if want := []kernel.State{kernel.Starting, kernel.Running, kernel.Killing, kernel.Killed}; !slices.Equal(states, want) {
		t.Errorf("got states %v, want %v", states, want)
	}
}

func TestEndsAreToldWithTheirReason(t *testing.T) {
	w := newWorld(t)
	w.net.foreign[8080] = "nginx (pid 7)"
	w.start()
	host := specOf("exec sleep 600")
	host.Tasks[0].Ports = []kernel.Port{{Protocol: "tcp", Host: 8080}}
	image := specOf("true")
	image.Tasks[0].Image = "registry.example/none:1"
	volume := specOf("true")
	volume.Tasks[0].Volumes = []kernel.Volume{{ContainerPath: "../out", HostPath: "/tmp"}}
	for _, c := range []struct {
		name   string
		spec   kernel.Spec
		group  kernel.Assignment
		state  kernel.State
		reason kernel.Reason
		says   string
	}{
		{"ok", specOf("exit 0"), kernel.Assignment{}, kernel.Finished, kernel.ReasonExit, "exited with 0"},
		{"fails", specOf("exit 3"), kernel.Assignment{}, kernel.Failed, kernel.ReasonExit, "exited with 3"},
		{"port", host, kernel.Assignment{HostPorts: []uint16{8080}}, kernel.Failed, kernel.ReasonPort, "nginx"},
		{"image", image, kernel.Assignment{}, kernel.Failed, kernel.ReasonImage, "registry.example/none:1"},
		{"volume", volume, kernel.Assignment{}, kernel.Error, kernel.ReasonRuntime, "leaves the sandbox"},
		{"stopped", specOf("true"), kernel.Assignment{Goal: kernel.GoalStop}, kernel.Killed, kernel.ReasonKilled, "before it was started"},
	} {
		c.group.ID = kernel.InstanceID(c.name)
		w.master.launch(c.spec, c.group)
		st := w.master.reaches(kernel.TaskID(c.name+".t0"), c.state)
		if st.Reason != c.reason || !strings.Contains(st.Message, c.says) {
			t.Errorf("%s: got %s %q, want %s and %q", c.name, st.Reason, st.Message, c.reason, c.says)
		}
	}
	w.master.launch(specOf("true"), kernel.Assignment{ID: "../../etc"})
	if st := w.master.reaches("../../etc.t0", kernel.Error); !strings.Contains(st.Message, "cannot name a directory") {
		t.Errorf("got %q, want that the id cannot name a directory", st.Message)
	}
}

func TestTasksOfAnInstanceEndTogether(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.master.launch(specOf("sleep 0.1; exit 4", "exec sleep 600"), kernel.Assignment{ID: "pod"})
	if st := w.master.reaches("pod.t0", kernel.Failed); st.Exit == nil || *st.Exit != 4 {
		t.Errorf("got %+v, want exit 4", st)
	}
	if st := w.master.reaches("pod.t1", kernel.Killed); st.Message != "task t0 of its group ended" {
		t.Errorf("got %q, want that t0 ended", st.Message)
	}
}

func TestTaskThatIgnoresTERMIsKilledAfterItsGrace(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := specOf(`trap '' TERM; echo up; while :; do sleep 0.01; done`)
	s.Tasks[0].KillGrace = 200 * time.Millisecond
	w.master.launch(s, kernel.Assignment{ID: "deaf"})
	w.master.reaches("deaf.t0", kernel.Running)
	out := filepath.Join(w.cfg.State, "sandboxes/deaf.t0/stdout")
	eventually(t, "it is up", func() bool { return readFile(t, out) == "up\n" })
	began := time.Now()
	w.master.end("deaf")
	st := w.master.reaches("deaf.t0", kernel.Killed)
	if st.Exit == nil || *st.Exit != 137 || time.Since(began) < 200*time.Millisecond {
		t.Errorf("got exit %v after %s, want 137 after the grace", *st.Exit, time.Since(began))
	}
}

func TestEnvironmentFieldsAreFilledIn(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := specOf(`env; exec sleep 600`)
	s.Tasks[0].Ports = []kernel.Port{{Protocol: "tcp", Host: 0}, {Protocol: "tcp", Host: 0}}
	for f, n := range map[kernel.Field]string{kernel.FieldHost: "HOST", kernel.FieldTaskID: "TASK", kernel.FieldInstanceID: "GROUP",
		kernel.FieldAddress: "ADDRESS", kernel.FieldPorts: "PORTS", kernel.FieldPort(1): "PORT1"} {
		s.Tasks[0].Env = append(s.Tasks[0].Env, kernel.EnvVar{Name: n, From: f})
	}
	s.Tasks[0].Env = append(s.Tasks[0].Env, kernel.EnvVar{Name: "X", Value: "1"}, kernel.EnvVar{Name: "X", Value: "2"})
	w.master.launch(s, kernel.Assignment{ID: "env", HostPorts: []uint16{31001, 31002}})
	w.master.reaches("env.t0", kernel.Running)
	box := filepath.Join(w.cfg.State, "sandboxes/env.t0")
	for _, want := range []string{"HOST=host1", "TASK=env.t0", "GROUP=env", "ADDRESS=127.0.0.1", "PORTS=31001,31002",
		"PORT1=31002", "X=2", "MESOS_SANDBOX=" + box} {
		eventually(t, want, func() bool { return strings.Contains("\n"+readFile(t, box+"/stdout"), "\n"+want+"\n") })
	}
}

func TestDiskOverItsLimitEndsTheTask(t *testing.T) {
	w := newWorld(t)
	w.start()
	s := specOf(`head -c 3000000 /dev/zero > "$MESOS_SANDBOX/big"; exec sleep 600`)
	s.Tasks[0].Guarantee.Disk = 2 * kernel.MiB
	w.master.launch(s, kernel.Assignment{ID: "big"})
	if st := w.master.reaches("big.t0", kernel.Failed); st.Reason != kernel.ReasonDisk || !strings.Contains(st.Message, "its limit is 2 MiB") {
		t.Errorf("got %s %q, want disk and the limit", st.Reason, st.Message)
	}
}

func TestNearlyFullDiskRefusesStartsAndNothingElse(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.master.launch(specOf("exec sleep 600"), kernel.Assignment{ID: "there"})
	pid := w.master.reaches("there.t0", kernel.Running).PID
	w.kill()
	w.cfg.MinFreeDisk = 1 << 62
	w.start()
	w.master.launch(specOf("exec sleep 600"), kernel.Assignment{ID: "new"})
	if st := w.master.reaches("new.t0", kernel.Failed); st.Reason != kernel.ReasonDisk || !strings.Contains(st.Message, "nearly full") {
		t.Errorf("got %s %q, want disk and nearly full", st.Reason, st.Message)
	}
	if st := w.master.status("there.t0"); st.State != kernel.Running || st.PID != pid {
		t.Errorf("the other: got %+v, want it running as before", st)
	}
}

func TestDrainLeavesNothingRunning(t *testing.T) {
	w := newWorld(t)
	w.start()
	for i := range 5 {
		w.master.launch(specOf("exec sleep 600"), kernel.Assignment{ID: kernel.InstanceID(fmt.Sprintf("g%d", i))})
	}
	for i := range 5 {
		w.master.reaches(kernel.TaskID(fmt.Sprintf("g%d.t0", i)), kernel.Running)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := w.agent.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if c := w.containers(); len(c) != 0 {
		t.Errorf("got %+v, want nothing", c)
	}
}
