package output

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/marinaos/marina/internal/kernel"
)

// Clean takes control characters out of what others wrote, so that a name cannot drive the terminal.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// Short cuts a text to n characters; one that was cut ends with "…".
func Short(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// Bar draws a share of a whole: "#######...".
func Bar(have, want int) string {
	const width = 20
	if want <= 0 {
		return strings.Repeat(".", width)
	}
	n := min(max(have*width/want, 0), width)
	return strings.Repeat("#", n) + strings.Repeat(".", width-n)
}

// Plural counts things: "1 node", "2 nodes".
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Number writes a number with as many digits as it needs: "0.5", "2".
func Number(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// MiB writes a number of MiB for a table: "1.5Gi", "256Mi".
func MiB(n float64) string {
	text := kernel.FormatBytes(int64(n * float64(kernel.MiB)))
	return strings.TrimSuffix(strings.Replace(text, " ", "", 1), "B")
}

// Ago writes a time as a distance: "12s", "3m", "5h", "4d"; a zero time is "".
func Ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := max(time.Since(t), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}
