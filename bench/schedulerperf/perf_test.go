// Package schedulerperf runs upstream's scheduler_perf: kube-scheduler with the real API server and etcd, and nodes
// that are rows. It is what placements from the API to the durable commit are compared with.
package schedulerperf

import (
	"flag"
	"fmt"
	"os"
	"testing"

	_ "k8s.io/component-base/logs/json/register"
	perf "k8s.io/kubernetes/test/integration/scheduler_perf"
)

// config is upstream's own file of workloads, in the directory of its module.
var config = flag.String("config", "", "path of scheduler_perf/misc/performance-config.yaml")

func TestMain(m *testing.M) {
	if err := perf.InitTests(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func BenchmarkPerfScheduling(b *testing.B) {
	perf.RunBenchmarkPerfScheduling(b, *config, "misc", nil)
}
