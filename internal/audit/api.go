package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Base is the prefix under which Handler answers.
const Base = "/audit/v1"

// Handler answers GET /audit/v1?who=&path=&since=&after=&outcome=&limit= with {"records": [...]}, oldest first. since
// is a time (RFC 3339) or a duration back from now ("1h").
func (l *Log) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			answer(w, http.StatusMethodNotAllowed, map[string]string{"message": "The audit log is read by GET. Nobody " +
				"changes it."})
			return
		}
		if strings.Trim(strings.TrimPrefix(r.URL.Path, Base), "/") != "" {
			answer(w, http.StatusNotFound, map[string]string{"message": "There is nothing at " + r.URL.Path +
				": read " + Base + "."})
			return
		}
		q, err := queryOf(r)
		records := []Record{}
		if err == nil {
			records, err = l.Read(r.Context(), q)
		}
		switch {
		case errors.Is(err, errdefs.ErrInvalidArgument):
			text := strings.TrimSuffix(err.Error(), ": "+errdefs.ErrInvalidArgument.Error())
			answer(w, http.StatusBadRequest, map[string]string{"message": text})
		case err != nil:
			l.cfg.Log.Error("audit log not read", "err", err)
			answer(w, http.StatusInternalServerError, map[string]string{"message": "The audit log cannot be read now; the " +
				"master's log says why."})
		default:
			answer(w, http.StatusOK, map[string][]Record{"records": records})
		}
	})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone, which is its own business
}

// queryOf reads a query. What is wrong in it is errdefs.ErrInvalidArgument by name.
func queryOf(r *http.Request) (q Query, err error) {
	for key, values := range r.URL.Query() {
		if len(values) != 1 {
			return q, fmt.Errorf("%s: given %d times: %w", key, len(values), errdefs.ErrInvalidArgument)
		}
		v := values[0]
		switch key {
		case "who":
			q.Who = v
		case "path":
			q.Path = v
		case "since":
			q.Since, err = sinceOf(v, time.Now())
		case "after":
			q.After, err = strconv.ParseInt(v, 10, 64)
		case "limit":
			if q.Limit, err = strconv.Atoi(v); err == nil && q.Limit < 1 {
				q.Limit = -1
			}
		case "outcome":
			if q.Outcome = Outcome(v); q.Outcome != Done && q.Outcome != Refused && q.Outcome != Failed && q.Outcome != Begun {
				err = errors.New("expected done, refused, failed or begun")
			}
		default:
			err = errors.New("is no filter of the audit log: use who, path, since, after, outcome, limit")
		}
		if err != nil {
			return q, fmt.Errorf("%s %q: %v: %w", key, v, err, errdefs.ErrInvalidArgument)
		}
	}
	return q, nil
}

func sinceOf(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil {
			return now.AddDate(0, 0, -n), nil
		}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, errors.New("expected a time such as 2026-11-30T10:00:00Z, or a duration such as 90m or 7d")
	}
	return t, nil
}
