package density

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

// look is one measurement of a number of idle clusters.
type look struct {
	*census                          // at its end
	used    map[string]time.Duration // processor time meanwhile, by who used it
	took    time.Duration
	busy    float64 // cores that anybody on the machine used
	gone    float64 // MiB that are no longer available since before the first cluster
}

// cores is an amount of processor time, in cores.
func (l *look) cores(who string) float64 { return l.used[who].Seconds() / l.took.Seconds() }

// idle counts the cores that the datacenter used, its clusters included, and of these the clusters.
func (l *look) idle() (all, clusters float64) {
	for who := range l.used {
		all += l.cores(who)
		if _, own := l.own[who]; !own {
			clusters += l.cores(who)
		}
	}
	return all, clusters
}

func watch(b *testing.B, h *testbed.Datacenter, all []*cluster, before float64) *look {
	b.Helper()
	first, busy, begin := count(h, all), machineBusy(), time.Now()
	rest(b, *idleFor)
	l := &look{took: time.Since(begin), used: map[string]time.Duration{}, gone: before - memAvailable()}
	l.busy = (machineBusy() - busy).Seconds() / l.took.Seconds()
	l.census = count(h, all)
	for who, t := range l.cpu {
		l.used[who] = t - first.cpu[who]
	}
	if l.failed != nil {
		b.Errorf("processor time: %v", l.failed)
	}
	return l
}

func BenchmarkDensity(b *testing.B) {
	h, c := open(b)
	rest(b, *settleFor)
	before := memAvailable()
	empty := watch(b, h, nil, before)
	all, last, why := fill(b, h, c, before)
	if len(all) == 0 {
		b.Fatal(why)
	}
	var ready, ran []time.Duration
	for _, k := range all {
		ready, ran = append(ready, k.ready), append(ran, k.ran)
	}
	how := fmt.Sprintf("%d one after another, from the request; one node, add-ons, programs and images present; "+
		"guaranteed %g and %g cpus", len(all), *planeCPUs, *nodeCPUs)
	row("create to `ready`", spread(ready), "", how)
	row("create to the user's pod running", spread(ran), "15 s",
		how+"; the pod is created as soon as the API server takes it")
	reportIdle(last, all, why)
	reportMemory(last, all)
	reportShown(b, c, last, all)
	for _, name := range []string{"daemon", "agent", "containerd"} {
		row(fmt.Sprintf("datacenter's %s with %d clusters", name, len(all)), own(last, name), own(empty, name)+" with none",
			"idle, by its process")
	}
	latency(b, all[0])

	p, err := newPeers(h, all[0])
	if err != nil {
		b.Errorf("components beside: %v", err)
	}
	var gone []time.Duration
	for _, k := range all {
		gone = append(gone, remove(b, c, k.name))
	}
	row("delete until gone", spread(gone), "", "one after another")
	if p != nil {
		p.compare(b, last, all)
	}
}

// fill creates clusters until there are enough, and returns those that are up, what was last seen of them and why there
// are no more.
func fill(b *testing.B, h *testbed.Datacenter, c *testbed.Client, before float64) (all []*cluster,
	last *look, why string) {
	for len(all) < *maxClusters {
		for range min(*step, *maxClusters-len(all)) {
			name := fmt.Sprintf("c%02d", len(all)+1)
			k, err := create(c, name)
			if err != nil {
				remove(b, c, name)
				why = fmt.Sprintf("%s did not come up: %.300v", name, err)
				break
			}
			all = append(all, k)
			row(name+" created", fmt.Sprintf("ready after %s, pod after %s", brief(k.ready), brief(k.ran)), "",
				fmt.Sprintf("beside %d others", len(all)-1))
		}
		if len(all) == 0 {
			return nil, nil, why
		}
		rest(b, *settleFor)
		last = watch(b, h, all, before)
		idle, _ := last.idle()
		row(fmt.Sprintf("%d clusters idle", len(all)), fmt.Sprintf("%.3f cores, %.0f MiB no longer available",
			idle, last.gone), "",
			fmt.Sprintf("datacenter and clusters, over %v; the whole machine %.2f cores", *idleFor, last.busy))
		switch {
		case why != "":
			return all, last, why
		case idle > *enough:
			return all, last, fmt.Sprintf("they use more than %.2f cores", *enough)
		}
	}
	return all, last, "that many were asked for"
}

func reportIdle(l *look, all []*cluster, why string) {
	idle, clusters := l.idle()
	row("clusters awake on this machine", fmt.Sprint(len(all)), "", "no more, because "+why)
	row("idle, all together", fmt.Sprintf("%.3f cores, of these clusters %.3f", idle, clusters), "0.5 cores",
		fmt.Sprintf("processor time by cgroup over %v; anybody on the machine: %.2f cores", *idleFor, l.busy))
	for _, kind := range []string{"control plane", "node", "outside"} {
		var shares []float64
		for _, k := range all {
			shares = append(shares, 100*l.cores(kind+" "+k.name))
		}
		what := kind
		if kind == "outside" {
			what = outside
		}
		row("idle "+what, several(shares, "%.2f")+" % of a core", "", "mean of clusters (least to most)")
	}
}

func reportMemory(l *look, all []*cluster) {
	var whole, shared []float64
	var text, everything float64
	for n := range all {
		u, _ := l.total(n)
		whole, shared = append(whole, u.private), append(shared, u.shared)
		text, everything = text+u.shared, everything+u.private+u.shared
	}
	for _, part := range parts {
		var private, file []float64
		for n := range all {
			if u, ok := l.parts[n][part]; ok {
				private, file = append(private, u.private), append(file, u.shared)
			}
		}
		if len(private) == 0 {
			continue
		}
		budget := ""
		if part == "control plane" {
			budget = "180 MiB"
		}
		row(part, several(private, "%.1f")+" MiB private", budget,
			several(file, "%.1f")+" MiB is its part of shared file pages")
	}
	row("whole cluster: control plane, node, add-ons, a pod", several(whole, "%.1f")+" MiB private", "300 MiB",
		several(shared, "%.1f")+" MiB is its part of shared file pages")
	row("file pages of all clusters, each counted once", fmt.Sprintf("%.0f MiB", text), "",
		fmt.Sprintf("sum of Pss_File of %d clusters", len(all)))
	row("all clusters, by their processes", fmt.Sprintf("%.0f MiB", everything), "", "sum of Pss_Anon and Pss_File")
	row("all clusters, by the machine", fmt.Sprintf("%.0f MiB (%.0f a cluster)", l.gone, l.gone/float64(len(all))), "",
		"change of MemAvailable, which counts the kernel's own memory for them but no file pages; others on the machine "+
			"are in it too")
}

// reportShown compares what `marina cluster show` says with what was counted here.
func reportShown(b *testing.B, c *testbed.Client, l *look, all []*cluster) {
	b.Helper()
	var shown, members, counted, most float64
	for n, k := range all {
		v, err := show(c, k.name, true)
		if err != nil || v.Cost == nil {
			b.Errorf("cost of %s: %v", k.name, err)
			return
		}
		_, inside := l.total(n)
		shown, counted = shown+v.Cost.Private, counted+inside.private
		most = max(most, math.Abs(v.Cost.Private-inside.private))
		for _, m := range v.Members {
			if m.Cost != nil {
				members += m.Cost.Private
			}
		}
	}
	row("private memory by `marina cluster show`", fmt.Sprintf("%.1f MiB, its members' lines together %.1f", shown,
		members), fmt.Sprintf("%.1f MiB counted here", counted),
		fmt.Sprintf("all clusters; processes inside of tasks; largest difference of one cluster %.1f MiB", most))
}

// own says what one of the datacenter's own processes uses.
func own(l *look, name string) string {
	return fmt.Sprintf("%.1f MiB private, %.2f %% of a core", l.own[name].private, 100*l.cores(name))
}
