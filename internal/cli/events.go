package cli

import (
	"bufio"
	"io"
	"strings"
)

// maxEvent bounds one event of a stream.
const maxEvent = 8 << 20

// scanEvents reads server-sent events until the stream ends or each says stop.
func scanEvents(r io.Reader, each func(kind string, data []byte) bool) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxEvent)
	kind := ""
	for sc.Scan() {
		line := sc.Text()
		if s, ok := strings.CutPrefix(line, "event:"); ok {
			kind = strings.TrimSpace(s)
		}
		if s, ok := strings.CutPrefix(line, "data:"); ok && !each(kind, []byte(strings.TrimSpace(s))) {
			return
		}
	}
}
