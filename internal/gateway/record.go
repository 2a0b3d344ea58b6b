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

// Strangers fill no log: what is refused without a principal is recorded this often, and the record says how many were not.
const (
	strangersPerSecond = 1
	strangersBurst     = 60
)

// recorder writes down what requests change, and measures all of them.
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
		requests: m.Counters("marina_gateway_requests_total", "Requests answered, by route, method and status code.", "route", "method", "code"),
		durations: m.Histograms("marina_gateway_request_duration_seconds", "Time from a request's headers to the end of its answer; streams are left out.",
			metrics.Durations, "route"),
		refused: m.Counters("marina_gateway_full_total", "Requests refused because as many were being served as may be.", "route"),
	}
}

// request is one request as it is recorded.
type request struct {
	*recorder
	w       *writer
	began   time.Time
	route   *Route
	method  string
	record  audit.Record
	notes   func() map[string]string
	session bool
}

// begin returns the request to be served instead, and what ends its record.
func (rec *recorder) begin(w *writer, r *http.Request, route *Route) (*http.Request, *request) {
	ctx, notes := audit.WithNotes(r.Context())
	q := &request{recorder: rec, w: w, began: time.Now(), route: route, method: r.Method, notes: notes}
	q.session = route != nil && route.Streaming && !safe(r.Method) && !route.Unrecorded
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = r.RemoteAddr
	}
	q.record = audit.Record{Time: q.began.UTC(), From: from, Action: r.Method, Path: r.URL.Path}
	return r.WithContext(ctx), q
}

// admitted notes who it is. A session is recorded at once: it may last for days.
func (q *request) admitted(p *identity.Principal) {
	q.record.Who, q.record.Token = p.UID, p.TokenID
	if q.session {
		q.record.Phase, q.record.Outcome = audit.PhaseBegun, audit.Begun
		q.log.Append(q.record)
		q.record.Phase = audit.PhaseEnded
	}
}

// label names the request's route in metrics.
func (q *request) label() string {
	if q.route == nil {
		return "none"
	}
	return q.route.Prefix + "/"
}

// end counts the request, and records it if it could change something or was denied.
func (q *request) end() {
	took := time.Since(q.began)
	route := q.label()
	status := q.w.result()
	q.requests.WithLabelValues(route, knownMethod(q.method), strconv.Itoa(status)).Inc()
	if q.route == nil || !q.route.Streaming {
		q.durations.WithLabelValues(route).Observe(took.Seconds())
	}
	denied := status == http.StatusUnauthorized || status == http.StatusForbidden
	if safe(q.method) && !denied || q.route != nil && q.route.Unrecorded {
		return
	}
	q.record.Status, q.record.Outcome, q.record.Duration, q.record.Notes = status, audit.OutcomeOf(status), took, q.notes()
	if q.record.Who == "" && q.record.Outcome != audit.Done && !q.stranger() {
		return
	}
	q.log.Append(q.record)
}

// stranger reports whether one more refusal of a stranger is recorded, and has the record tell how many were not.
func (q *request) stranger() bool {
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

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions || method == http.MethodTrace
}

// knownMethod keeps what clients invent from becoming a label.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}
