package client

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
)

// Events opens a stream of server-sent events. The caller closes it, and reads it by ScanEvents.
func (c *Client) Events(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := c.newRequest(ctx, http.MethodGet, path, nil, "text/event-stream")
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, Refused(resp)
	}
	return resp.Body, nil
}

// maxEvent bounds one event of a stream.
const maxEvent = 8 << 20

// ScanEvents reads server-sent events until the stream ends or each returns false.
func ScanEvents(r io.Reader, each func(kind string, data []byte) bool) {
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
