package gateway

import (
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/marinaos/marina/internal/audit"
	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/metrics"
)

// Refusals without a principal are recorded at this rate, so that strangers cannot fill the log; a record counts
// those left out before it.
const (
	strangersPerSecond = 1
	strangersBurst     = 60
)

// recorder writes the audit records of requests, and measures all of them.
type recorder struct {
	log       *audit.Log // nil: nothing is recorded
	requests  metrics.CounterVec
	durations metrics.HistogramVec
	refused   metrics.CounterVec
	strangers *rate.Limiter

	mu         sync.Mutex
	suppressed int // records of strangers since the last one; guarded by mu
}

func newRecorder(log *audit.Log, m *metrics.Registry) *recorder {
	return &recorder{log: log, strangers: rate.NewLimiter(strangersPerSecond, strangersBurst),
		requests: m.Counters("marina_gateway_requests_total", "Requests answered, by route, method and status code.",
			"route", "method", "code"),
		durations: m.Histograms("marina_gateway_request_duration_seconds",
			"Time from a request's headers to the end of its answer; streams are left out.",
			metrics.Durations, "route"),
		refused: m.Counters("marina_gateway_full_total", "Requests refused because as many were being served as may be.",
			"route"),
	}
}

// requestRecord is the record of one request in progress.
type requestRecord struct {
	*recorder
	w       *writer
	began   time.Time
	route   *Route
	method  string
	record  audit.Record
	notes   func() map[string]string
	session bool
}

// beginRequest returns the request to be served instead, whose context collects notes, and its record.
func (rec *recorder) beginRequest(w *writer, r *http.Request, route *Route) (*http.Request, *requestRecord) {
	ctx, notes := audit.WithNotes(r.Context())
	q := &requestRecord{recorder: rec, w: w, began: time.Now(), route: route, method: r.Method, notes: notes}
	q.session = route != nil && route.Streaming && !isSafe(r.Method) && !route.Unrecorded
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = r.RemoteAddr
	}
	q.record = audit.Record{Time: q.began.UTC(), From: from, Action: r.Method, Path: r.URL.Path}
	return r.WithContext(ctx), q
}

// setPrincipal records the principal. A session is also written at once: it may last for days.
func (q *requestRecord) setPrincipal(p *identity.Principal) {
	q.record.Who, q.record.Token = p.UID, p.TokenID
	if q.session {
		q.record.Phase, q.record.Outcome = audit.PhaseBegun, audit.Begun
		q.log.Append(q.record)
		q.record.Phase = audit.PhaseEnded
	}
}

// label returns the name of the request's route in metrics.
func (q *requestRecord) label() string {
	if q.route == nil {
		return "none"
	}
	return q.route.Prefix + "/"
}

// finish counts the request, and writes its record if it could change something or was denied.
func (q *requestRecord) finish() {
	took := time.Since(q.began)
	route := q.label()
	status := q.w.sentStatus()
	q.requests.WithLabelValues(route, knownMethod(q.method), strconv.Itoa(status)).Inc()
	if q.route == nil || !q.route.Streaming {
		q.durations.WithLabelValues(route).Observe(took.Seconds())
	}
	denied := status == http.StatusUnauthorized || status == http.StatusForbidden
	if isSafe(q.method) && !denied || q.route != nil && q.route.Unrecorded {
		return
	}
	q.record.Status, q.record.Outcome, q.record.Duration, q.record.Notes = status, audit.OutcomeOf(status), took, q.notes()
	if q.record.Who == "" && q.record.Outcome != audit.Done && !q.allowStranger() {
		return
	}
	q.log.Append(q.record)
}

// allowStranger reports whether one more refusal without a principal is recorded, and notes the number of those left
// out.
func (q *requestRecord) allowStranger() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.strangers.Allow() {
		q.suppressed++
		return false
	}
	if q.suppressed > 0 {
		notes := map[string]string{"not recorded before": strconv.Itoa(q.suppressed)}
		for k, v := range q.record.Notes {
			notes[k] = v
		}
		q.record.Notes, q.suppressed = notes, 0
	}
	return true
}

func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions ||
		method == http.MethodTrace
}

// knownMethod maps methods that clients invent to one label.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions:
		return method
	}
	return "other"
}
