package steward

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait of a test.
const patience = 30 * time.Second

// object is one of the API's, as JSON has it.
type object = map[string]any

// twin is an API server as far as a steward speaks with it: collections of objects that are listed and watched, and
// written by POST, PATCH and DELETE. What was asked of it is recorded.
type twin struct {
	mu      sync.Mutex
	objects map[string]object                                 // by path; guarded by mu, as all below
	changed chan struct{}                                     // closed when there is another object, or one less
	asked   []string                                          // method and path of each write
	wrong   func(w http.ResponseWriter, r *http.Request) bool // answers instead, if it does
}

// listKinds names the collections that are read.
var listKinds = map[string]string{"nodes": "NodeList", "pods": "PodList", "services": "ServiceList",
	"endpointslices": "EndpointSliceList", "persistentvolumeclaims": "PersistentVolumeClaimList",
	"persistentvolumes": "PersistentVolumeList"}

func newTwin() *twin { return &twin{objects: map[string]object{}, changed: make(chan struct{})} }

// put has the API hold an object, whose uid is its path.
func (a *twin) put(at, kind string, o object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	meta, _ := o["metadata"].(object)
	if meta == nil {
		meta = object{}
	}
	if meta["name"] == nil {
		meta["name"] = path.Base(at)
	}
	meta["uid"], meta["resourceVersion"] = at, "7"
	o["metadata"], o["kind"] = meta, kind
	if o["apiVersion"] == nil {
		o["apiVersion"] = "v1"
	}
	a.objects[at] = o
	a.tell()
}

// tell wakes who watches. mu is held.
func (a *twin) tell() {
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *twin) answerWrongly(f func(w http.ResponseWriter, r *http.Request) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wrong = f
}

// writes lists what was asked that begins with text.
func (a *twin) writes(text string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(a.asked), func(s string) bool { return !strings.HasPrefix(s, text) })
}

// in lists the objects of a collection by path, and what tells of another.
func (a *twin) in(collection string) (map[string]object, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]object{}
	for at, o := range a.objects {
		if path.Base(path.Dir(at)) == path.Base(collection) && strings.HasPrefix(at, path.Dir(collection)+"/") {
			out[at] = o
		}
	}
	return out, a.changed
}

func (a *twin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	wrong := a.wrong
	a.mu.Unlock()
	if wrong != nil && wrong(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch base := path.Base(r.URL.Path); {
	case r.URL.Path == "/readyz":
		_, _ = io.WriteString(w, "ok")
	case r.Method != http.MethodGet:
		a.write(w, r)
	case r.URL.Query().Get("watch") == "true" || r.URL.Query().Get("watch") == "1":
		a.watch(w, r)
	case listKinds[base] != "" && !strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadataList"):
		a.list(w, r, object{"kind": listKinds[base], "apiVersion": versionOf(r.URL.Path)})
	default:
		a.list(w, r, object{"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"})
	}
}

func versionOf(at string) string {
	if group, ok := strings.CutPrefix(at, "/apis/"); ok {
		parts := strings.Split(group, "/")
		return parts[0] + "/" + parts[1]
	}
	return "v1"
}

func (a *twin) list(w http.ResponseWriter, r *http.Request, list object) {
	items := []object{}
	found, _ := a.in(r.URL.Path)
	for _, at := range slices.Sorted(maps.Keys(found)) {
		items = append(items, found[at])
	}
	list["items"], list["metadata"] = items, object{"resourceVersion": "7"}
	_ = json.NewEncoder(w).Encode(list)
}

// watch tells what there is, that this was all, and then what comes and goes.
func (a *twin) watch(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("sendInitialEvents") != "true" {
		<-r.Context().Done() // what was listed stays as it is
		return
	}
	kind := strings.TrimSuffix(listKinds[path.Base(r.URL.Path)], "List")
	told, say := map[string]object{}, json.NewEncoder(w)
	for first := true; ; first = false {
		now, changed := a.in(r.URL.Path)
		for at, o := range now {
			if told[at] == nil {
				_ = say.Encode(object{"type": "ADDED", "object": o})
			}
		}
		for at, o := range told {
			if now[at] == nil {
				_ = say.Encode(object{"type": "DELETED", "object": o})
			}
		}
		told = now
		if first {
			_ = say.Encode(object{"type": "BOOKMARK", "object": object{"kind": kind, "apiVersion": versionOf(r.URL.Path),
				"metadata": object{"resourceVersion": "7", "annotations": object{"k8s.io/initial-events-end": "true"}}}})
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (a *twin) write(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, r.Method+" "+r.URL.Path)
	switch r.Method {
	case http.MethodDelete:
		if a.objects[r.URL.Path] == nil {
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(object{"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404})
			return
		}
		delete(a.objects, r.URL.Path)
		a.tell()
		_ = json.NewEncoder(w).Encode(object{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	case http.MethodPatch:
		o := object{}
		_ = json.Unmarshal(body, &o)
		if old := a.objects[r.URL.Path]; old != nil {
			o = old // whatever was changed of it
		} else if o["kind"] != nil {
			a.objects[r.URL.Path] = o
		}
		_ = json.NewEncoder(w).Encode(o)
	default: // as it was sent
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
	}
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for limit := time.After(patience); !holds(); {
		select {
		case <-limit:
			t.Fatalf("not within %v: %s", patience, what)
		case <-time.After(10 * time.Millisecond): // neither side has an event of its own for it
		}
	}
}

// wrongly answers requests whose path has text in it by a status and a body.
func wrongly(text string, status int, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, text) {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
		return true
	}
}
