package metrics

import (
	"errors"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// The instruments. Those with labels (…Vec) give one for each combination of values.
type (
	Counter      = prometheus.Counter
	CounterVec   = *prometheus.CounterVec
	Gauge        = prometheus.Gauge
	GaugeVec     = *prometheus.GaugeVec
	Histogram    = prometheus.Observer
	HistogramVec = *prometheus.HistogramVec
)

// Durations are the bounds in seconds of histograms of what takes from a tenth of a millisecond to half a minute.
var Durations = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// Sizes are the bounds of histograms of how many there were: of events in a batch, of rows in a commit.
var Sizes = []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000}

// Registry holds the instruments of a process.
type Registry struct{ reg *prometheus.Registry }

// New returns the registry of a process. Its Handler also serves what libraries register by themselves: the Go
// runtime's and the kernel's view of the process, and etcd's.
func New(version string) *Registry {
	r := &Registry{prometheus.NewRegistry()}
	goVersion := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		goVersion = info.GoVersion
	}
	r.Gauges("marina_build_info", "The running build; always 1.", "version", "goversion").WithLabelValues(version,
		goVersion).Set(1)
	return r
}

// Counter returns the counter of a name.
func (r *Registry) Counter(name, help string) Counter {
	return register(r, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))
}

// Counters returns the counters of a name, one for each combination of the labels' values.
func (r *Registry) Counters(name, help string, labels ...string) CounterVec {
	return register(r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
}

// Gauge returns the gauge of a name.
func (r *Registry) Gauge(name, help string) Gauge {
	return register(r, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help}))
}

// Gauges returns the gauges of a name, one for each combination of the labels' values.
func (r *Registry) Gauges(name, help string, labels ...string) GaugeVec {
	return register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels))
}

// GaugeFunc adds a gauge whose value is asked for at each scrape; f must be quick and safe for concurrent use. The
// first f of a name stays: it is for what lives as long as the process.
func (r *Registry) GaugeFunc(name, help string, f func() float64) {
	register(r, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
}

// Histogram returns the histogram of a name; bounds are those of its buckets, ascending.
func (r *Registry) Histogram(name, help string, bounds []float64) Histogram {
	return register(r, prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: bounds}))
}

// Histograms returns the histograms of a name, one for each combination of the labels' values.
func (r *Registry) Histograms(name, help string, bounds []float64, labels ...string) HistogramVec {
	return register(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: bounds},
		labels))
}

// register adds an instrument, or returns the one that is there already.
func register[C prometheus.Collector](r *Registry, c C) C {
	if r == nil {
		return c
	}
	err := r.reg.Register(c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		return already.ExistingCollector.(C)
	}
	if err != nil {
		panic(err) // two rooms want the same name for different things
	}
	return c
}

// Since observes the seconds from a time until now; with defer, those that a function takes.
func Since(h Histogram, began time.Time) { h.Observe(time.Since(began).Seconds()) }

// Handler serves the registry's instruments in the formats that Prometheus reads, by GET.
func (r *Registry) Handler() http.Handler {
	h := promhttp.HandlerFor(prometheus.Gatherers{r.reg, prometheus.DefaultGatherer},
		promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: maxScrapes})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Metrics are read by GET.", http.StatusMethodNotAllowed)
			return
		}
		h.ServeHTTP(w, req)
	})
}

// maxScrapes bounds the scrapes at once; more are answered 503.
const maxScrapes = 4
