package etcd

import (
	"bytes"
	"fmt"
	"strconv"
	"testing"

	"github.com/marinaos/marina/internal/store"
)

// A packed row of the benchmark holds this many records of this size: 4 KiB.
const (
	rowRecords  = 64
	recordBytes = 64
)

// BenchmarkCommit commits instances of packed rows, one transaction after the other, with fsync, under a leader's
// fence.
func BenchmarkCommit(b *testing.B) {
	for _, group := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("group=%d", group), func(b *testing.B) {
			s := embedded(b, Embedded{})
			l, err := s.Campaign(b.Context(), "e", "bench")
			if err != nil {
				b.Fatal(err)
			}
			txn := store.Txn{Guards: []store.Guard{l.Fence()}}
			for i := range group {
				value := bytes.Repeat([]byte{byte(i)}, rowRecords*recordBytes)
				txn.Ops = append(txn.Ops, store.Put(store.Key("agent", strconv.Itoa(i)), value))
			}
			for b.Loop() {
				if _, err := s.Commit(b.Context(), txn); err != nil {
					b.Fatal(err)
				}
			}
			rows := float64(b.N*group) / b.Elapsed().Seconds()
			b.ReportMetric(rows, "rows/s")
			b.ReportMetric(rows*rowRecords, "records/s")
		})
	}
}
