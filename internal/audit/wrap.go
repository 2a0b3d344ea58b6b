package audit

import (
	"net/http"
	"time"
)

// Wrap records what is asked of a handler by other methods than GET and HEAD. who names the asker and where it is. It
// is for small handlers beside the gateway, which records by itself: an answer cannot be flushed or hijacked through
// it.
func (l *Log) Wrap(next http.Handler, who func(*http.Request) (name, from string)) http.Handler {
	if l == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		began := time.Now()
		ctx, notes := WithNotes(r.Context())
		s := &statusWriter{ResponseWriter: w}
		defer func() {
			name, from := who(r)
			l.Append(Record{Time: began.UTC(), Who: name, From: from, Action: r.Method, Path: r.URL.Path, Status: s.status,
				Outcome: OutcomeOf(s.status), Duration: time.Since(began), Notes: notes()})
		}()
		next.ServeHTTP(s, r.WithContext(ctx))
		if s.status == 0 {
			s.status = http.StatusOK
		}
	})
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the first status.
func (s *statusWriter) WriteHeader(status int) {
	if s.status == 0 && status >= http.StatusOK {
		s.status = status
	}
	s.ResponseWriter.WriteHeader(status)
}

// Write is a 200 if nothing else was said.
func (s *statusWriter) Write(p []byte) (int, error) {
	if s.status == 0 {
		s.status = http.StatusOK
	}
	return s.ResponseWriter.Write(p)
}
