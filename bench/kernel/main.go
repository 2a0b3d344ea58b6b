package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// parts are the measurements, in order.
var parts = []struct {
	name string
	run  func(tasks int) error // tasks that SwarmKit is given in each case
}{{"placement", placements}, {"packing", packing}, {"sharing", sharing}}

func main() {
	only := flag.String("only", "", "one of placement, packing, sharing")
	peer := flag.Int("peer", 2000, "tasks that SwarmKit places in each case; 0 leaves it out")
	flag.Parse()
	known := false
	for _, p := range parts {
		if *only != "" && *only != p.name {
			continue
		}
		known = true
		fmt.Printf("== %s\n", p.name)
		began := time.Now()
		if err := p.run(*peer); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", p.name, err)
			os.Exit(1)
		}
		fmt.Printf("(%.0f s)\n\n", time.Since(began).Seconds())
		runtime.GC()
	}
	if !known {
		fmt.Fprintf(os.Stderr, "no part %q\n", *only)
		os.Exit(2)
	}
}

// row prints cells in columns.
func row(widths []int, cells ...any) {
	var b strings.Builder
	for i, c := range cells {
		if i == 0 {
			fmt.Fprintf(&b, "%-*v", widths[0], c)
		} else {
			fmt.Fprintf(&b, "  %*v", widths[i], c)
		}
	}
	fmt.Println(b.String())
}

// count writes a number of many digits so that it can be read: 123,456.
func count(n float64) string {
	s := fmt.Sprintf("%.0f", n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
