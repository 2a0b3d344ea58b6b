package proof

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAFullEtcdTakesWritesAgainOnceSomethingIsDeleted: somebody fills a cluster and deletes what filled it. Without
// etcdroom it would refuse writes for ever.
func TestAFullEtcdTakesWritesAgainOnceSomethingIsDeleted(t *testing.T) {
	eachMinor(t, func(t *testing.T, program, _ string) {
		p := newPlane(t, program)
		p.up(t, "--etcd-arg=--quota-backend-bytes=16777216")
		eventually(t, func() error { // every controller has begun: one that cannot write then ends the control plane
			_, err := p.tryKubectl("get", "serviceaccount", "default")
			return err
		})
		large := filepath.Join(p.dir, "large")
		if err := os.WriteFile(large, []byte(strings.Repeat("x", 1_000_000)), 0o600); err != nil {
			t.Fatal(err)
		}
		names := []string{"delete", "configmap"}
		for n := 0; ; n++ {
			name := fmt.Sprintf("fills-%d", n)
			out, err := p.tryKubectl("create", "configmap", name, "--from-file=x="+large)
			if err != nil && strings.Contains(out, "space exceeded") {
				break
			}
			if names = append(names, name); err != nil || n > 30 {
				t.Fatalf("the %dth megabyte into 16: %v: %s", n, err, out)
			}
		}
		refused := func() error {
			_, err := p.tryKubectl("create", "configmap", "small", "--from-literal=a=b")
			return err
		}
		if refused() == nil {
			t.Fatal("a full etcd takes writes: this test shows nothing")
		}
		p.kubectl(t, "get", "namespaces")
		p.kubectl(t, names...)
		eventually(t, func() error {
			if err := refused(); err != nil {
				return errors.New("it still refuses writes")
			}
			return nil
		})
	})
}
