package marathon

import (
	"slices"
	"testing"
)

func TestOnlyLentDirectoriesMayBeVolumes(t *testing.T) {
	app := func(host string) *App {
		return &App{Container: &Container{Volumes: []Volume{{ContainerPath: "/data", HostPath: host, Mode: "RW"}}}}
	}
	for host, refused := range map[string]bool{"/srv": false, "/srv/a/b": false, "/": true, "/etc": true, "/srvx": true,
		"/srv/../etc": true} {
		if got := app(host).ForeignVolumes([]string{"/srv", "/data"}); len(got) > 0 != refused {
			t.Errorf("%s: %v, want refused to be %v", host, got, refused)
		}
		if got := app(host).ForeignVolumes([]string{}); len(got) != 1 || got[0].Path != "/container/volumes(0)/hostPath" {
			t.Errorf("%s where nothing is lent: %v, want it refused by name", host, got)
		}
	}
}

func TestNoImageNoRootInTheMachinesNetwork(t *testing.T) {
	bridge := []Network{{Mode: "container/bridge"}}
	for name, c := range map[string]struct {
		user     string
		networks []Network
		image    bool
		refused  bool
	}{
		"root": {"root", nil, false, true}, "zero": {"0", nil, false, true}, "with group": {"00:0", nil, false, true},
		"somebody": {"web", nil, false, false}, "bridge": {"root", bridge, false, false}, "image": {"root", nil, true, false},
	} {
		a := &App{User: &c.user, Networks: c.networks}
		if c.image {
			a.Container = &Container{Docker: &Docker{Image: "x"}}
		}
		got := slices.ContainsFunc(a.Validate([]string{""}), func(d Detail) bool { return d.Path == "/user" })
		if got != c.refused {
			t.Errorf("%s: refused %v, want %v", name, got, c.refused)
		}
	}
}
