package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/marinaos/marina/internal/access"
)

// followBeat is the pause between comments that keep a stream alive.
const followBeat = 15 * time.Second

// follow tells a cluster at every change, until it is gone or the client is.
func (a *API) follow(w http.ResponseWriter, r *http.Request) error {
	if _, err := a.may(r, access.Read); err != nil {
		return err
	}
	name := r.PathValue("name")
	v, changed, err := a.clusters.Get(name)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	last := []byte(nil)
	for {
		raw, err := json.Marshal(v)
		if err != nil {
			return nil // the stream has begun
		}
		if !bytes.Equal(raw, last) {
			last = raw
			if _, err := fmt.Fprintf(w, "data: %s\n\n", raw); err != nil {
				return nil
			}
			_ = control.Flush()
		}
		select {
		case <-changed:
		case <-time.After(followBeat):
			if _, err := io.WriteString(w, ": \n\n"); err != nil {
				return nil
			}
			_ = control.Flush()
		case <-r.Context().Done():
			return nil
		case <-a.clusters.Ended():
			return nil
		}
		if v, changed, err = a.clusters.Get(name); err != nil {
			return nil
		}
	}
}
