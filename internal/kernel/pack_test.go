package kernel

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func TestPackedEndpointsAreReadAsTheyWere(t *testing.T) {
	for _, n := range []int{0, 1, 500} {
		want := &EndpointDelta{From: 3, To: 4, Remove: []TaskID{"gone"}}
		for i := range n {
			want.Set = append(want.Set, Endpoint{Task: TaskID(fmt.Sprintf("app.instance-%d._app.1", i)),
				Owner: "/app", Ready: true,
				Machine: netip.MustParseAddr("192.0.2.1"), Ports: []EndpointPort{{Protocol: "tcp", Container: 80}}})
		}
		raw, err := want.Pack()
		if err != nil {
			t.Fatal(err)
		}
		plain, err := json.Marshal(want)
		if err != nil || n > 100 && len(raw) > len(plain)/4 {
			t.Errorf("%d endpoints: packed into %d bytes of %d, error %v, want a quarter at most", n, len(raw), len(plain), err)
		}
		var frame Down
		if err := json.Unmarshal(fmt.Appendf(nil, `{"epoch":1,"seq":2,"endpoints":%s}`, raw), &frame); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, frame.Endpoints, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%d endpoints (-want +got):\n%s", n, diff)
		}
	}
	var d EndpointDelta
	for _, bad := range []string{`{"packed":"!"}`, `{"packed":"AAAA"}`, `{"packed":7}`, `[]`} {
		if err := json.Unmarshal([]byte(bad), &d); err == nil {
			t.Errorf("delta %s: got no error", bad)
		}
	}
}

func TestEndpointsThatUnpackToMoreThanAnyAreRefused(t *testing.T) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	blanks := bytes.Repeat([]byte(" "), MaxFrame)
	for range maxUnpacked/MaxFrame + 1 {
		if _, err := w.Write(blanks); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	small, err := json.Marshal(packed{b.Bytes()})
	if err != nil || len(small) > MaxFrame {
		t.Fatalf("%d bytes, %v, want what fits into a frame", len(small), err)
	}
	var d EndpointDelta
	if err := json.Unmarshal(small, &d); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v, want an errdefs.ErrInvalidArgument", err)
	}
}
