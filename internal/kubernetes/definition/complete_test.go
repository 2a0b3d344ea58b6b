package definition

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
)

func read(t *testing.T, text string) Cluster {
	t.Helper()
	var d Cluster
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func complete(t *testing.T, text string) Cluster {
	t.Helper()
	d, err := read(t, text).Complete()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The defaults are documented, and rows hold them: they never change for a cluster that is there.
func TestWhatIsLeftOutHasItsDefault(t *testing.T) {
	got := complete(t, `{"name":"a"}`)
	want := Cluster{Name: "a", Group: "/", Version: "1.37", Nodes: Nodes{Count: new(1), CPUs: 0.5, Mem: 1024, Disk: 8192},
		ControlPlane: ControlPlane{CPUs: 0.1, Mem: 256, Disk: 2048}, PodCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/16",
		Encryption: new(true)}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if got := complete(t, `{"name":"a","version":"v1.36","nodes":{"count":0}}`); got.Version != "1.36" ||
		*got.Nodes.Count != 0 {
		t.Errorf("given: got %s and %d nodes, want what was given", got.Version, *got.Nodes.Count)
	}
}

func TestWhatCannotBeIsRefusedByItsField(t *testing.T) {
	for text, says := range map[string]string{
		`{"name":""}`: "name", `{"name":"-a"}`: "name", `{"name":"a-"}`: "name", `{"name":"a.b"}`: "name",
		`{"name":"é"}`:             "name",
		`{"name":"a","group":"/"}`: "", `{"name":"a","group":"/team/sub-1"}`: "",
		`{"name":"a","group":"/Team"}`: "group", `{"name":"a","group":"/a//b"}`: "group",
		`{"name":"a","group":"/a/"}`:   "group",
		`{"name":"a","version":"1.3"}`: "1.37 and 1.36", `{"name":"a","nodes":{"count":101}}`: "nodes.count 101",
		`{"name":"a","nodes":{"cpus":0.05}}`:      "nodes.cpus 0.05: expected 0.1 to 512",
		`{"name":"a","nodes":{"cpus":1e9}}`:       "nodes.cpus",
		`{"name":"a","nodes":{"disk":100}}`:       "nodes.disk",
		`{"name":"a","controlPlane":{"mem":100}}`: "controlPlane.mem 100: expected 192",
		`{"name":"a","controlPlane":{"cpus":-1}}`: "controlPlane.cpus",
		`{"name":"a","controlPlane":{"disk":1}}`:  "controlPlane.disk",
		`{"name":"a","podCIDR":"10.244.0.0"}`:     "podCIDR", `{"name":"a","podCIDR":"10.244.0.1/16"}`: "podCIDR",
		`{"name":"a","podCIDR":"fd00::/16"}`:  "podCIDR",
		`{"name":"a","podCIDR":"10.0.0.0/7"}`: "podCIDR", `{"name":"a","podCIDR":"10.0.0.0/25"}`: "podCIDR",
		`{"name":"a","podCIDR":"10.0.0.0/22","nodes":{"count":4}}`: "",
		`{"name":"a","podCIDR":"10.0.0.0/22","nodes":{"count":5}}`: "enough for 4 nodes and not for 5",
		`{"name":"a","serviceCIDR":"10.96.0.0/11"}`:                "serviceCIDR",
		`{"name":"a","serviceCIDR":"10.96.0.0/25"}`:                "serviceCIDR",
		`{"name":"a","serviceCIDR":"10.244.4.0/24"}`:               "overlap",
	} {
		_, err := read(t, text).Complete()
		switch {
		case says == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case says != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), says)):
			t.Errorf("%s: got %v, want a refusal with %q", text, err, says)
		}
	}
}

func TestRangesOfTheDatacenterAreNoClusters(t *testing.T) {
	d := complete(t, `{"name":"a"}`)
	pool, vips := netip.MustParsePrefix("10.128.0.0/16"), netip.MustParsePrefix("198.18.0.0/16")
	if err := d.Clear(pool, vips); err != nil {
		t.Errorf("apart: %v", err)
	}
	if err := d.Clear(netip.MustParsePrefix("10.0.0.0/8"), vips); !errdefs.IsInvalidArgument(err) ||
		!strings.Contains(err.Error(), "addresses of tasks") {
		t.Errorf("within the pool: got %v", err)
	}
	if err := d.Clear(pool, netip.MustParsePrefix("10.96.7.0/24")); !errdefs.IsInvalidArgument(err) ||
		!strings.Contains(err.Error(), "VIPs") {
		t.Errorf("around the VIPs: got %v", err)
	}
	if err := d.Clear(netip.Prefix{}, netip.Prefix{}); err != nil {
		t.Errorf("of nothing: %v", err)
	}
}

func TestAChangeKeepsWhatIsLeftOutAndWhatNeverChanges(t *testing.T) {
	had := complete(t, `{"name":"a","group":"/team","version":"1.36","audit":true,"encryption":false,"privileged":true,
		"nodes":{"count":2,"cpus":1,"mem":2048,"disk":9000}}`)
	got, err := had.Change(Cluster{Name: "a", Nodes: Nodes{Count: new(5)}, ControlPlane: ControlPlane{Mem: 512}})
	if err != nil {
		t.Fatal(err)
	}
	want := had
	want.Nodes.Count, want.ControlPlane.Mem = new(5), 512
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for text, says := range map[string]string{
		`{"group":"/other"}`: "group", `{"version":"1.37"}`: "version", `{"version":"v1.36"}`: "",
		`{"podCIDR":"10.1.0.0/16"}`:      "podCIDR",
		`{"serviceCIDR":"10.97.0.0/16"}`: "serviceCIDR", `{"encryption":true}`: "encryption", `{"encryption":false}`: "",
		`{"privileged":false}`: "privileged", `{"audit":true}`: "", `{"nodes":{"disk":10000}}`: "disks",
		`{"controlPlane":{"disk":4096}}`: "disks",
		`{"nodes":{"mem":1}}`:            "nodes.mem", `{"nodes":{"count":0}}`: "",
	} {
		to := read(t, text)
		to.Name = "a"
		_, err := had.Change(to)
		switch {
		case says == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case says != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), says)):
			t.Errorf("%s: got %v, want a refusal with %q", text, err, says)
		}
	}
}

// A definition that was completed is complete, and so is what any change makes of it.
func TestCompleteIsComplete(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(what string) Cluster {
			return Cluster{Name: "a", Nodes: Nodes{Count: new(rapid.IntRange(-1, 101).Draw(t, what+" count")),
				CPUs: rapid.Float64Range(0, 600).Draw(t, what+" cpus"), Mem: rapid.Float64Range(0, 5<<20).Draw(t, what+" mem")},
				ControlPlane: ControlPlane{Mem: rapid.Float64Range(0, 5<<20).Draw(t, what+" plane")},
				PodCIDR:      rapid.SampledFrom([]string{"", "10.0.0.0/8", "10.244.0.0/20", "x"}).Draw(t, what+" pods")}
		}
		d, err := draw("first").Complete()
		if err != nil {
			return
		}
		again, err := d.Complete()
		if diff := cmp.Diff(d, again); err != nil || diff != "" {
			t.Fatalf("completed twice, %v:\n%s", err, diff)
		}
		to, err := d.Change(draw("then"))
		if err != nil {
			return
		}
		again, err = to.Complete()
		if diff := cmp.Diff(to, again); err != nil || diff != "" {
			t.Fatalf("changed and completed, %v:\n%s", err, diff)
		}
		if lacks := to.Guarantee().Lacking(kernel.Resources{}); len(lacks) == 0 {
			t.Fatalf("%+v takes nothing of the pool", to)
		}
	})
}

func TestWhatAClusterTakesIsAllOfItsMembers(t *testing.T) {
	one := complete(t, `{"name":"a","nodes":{"count":0}}`)
	for n := range 3 {
		d := complete(t, fmt.Sprintf(`{"name":"a","nodes":{"count":%d,"cpus":2,"mem":4096,"disk":10240}}`, n))
		more := d.Guarantee().Sub(one.Guarantee())
		want := kernel.Resources{MilliCPU: int64(n) * 2000, Mem: int64(n) * 4096 * kernel.MiB,
			Disk: int64(n) * (10240*kernel.MiB + sandboxDisk)}
		if more != want {
			t.Errorf("%d nodes: got %v more than none, want %v", n, more, want)
		}
	}
	if size := one.PlaneSize(); size.Limit.Mem != planeBurst*size.Guarantee.Mem {
		t.Errorf("the control plane: got %+v, want room to grow", size)
	}
	if got, want := one.Service(10), netip.MustParseAddr("10.96.0.10"); got != want {
		t.Errorf("service 10: got %v, want %v", got, want)
	}
}
