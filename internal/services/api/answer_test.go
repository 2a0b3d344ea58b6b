package api

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// stuckClient takes no byte of its answer until it is let go.
type stuckClient struct {
	*httptest.ResponseRecorder
	let chan struct{}
}

func (c *stuckClient) Write(b []byte) (int, error) {
	<-c.let
	return c.ResponseRecorder.Write(b)
}

// TestAClientThatDoesNotReadStopsNobody asks for everything there is to read, takes no byte of the answer, and
// changes an app meanwhile. Would the answer be written under the state's lock, the change would wait for the client
// and the test would not end.
func TestAClientThatDoesNotReadStopsNobody(t *testing.T) {
	for _, path := range []string{"/v2/deployments", "/v2/queue", "/v2/groups", "/v2/groups/g", "/v2/groups/versions",
		"/v2/apps",
		"/v2/apps/g/web", "/v2/apps/g/web/versions", "/v2/apps/g/web/tasks", "/v2/tasks", "/v2/info", "/metrics",
		"/v2/apps/nowhere"} {
		t.Run(path, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.must(201, "POST", "/v2/apps", `{"id":"/g/web","cmd":"x","instances":3}`)
				client := &stuckClient{httptest.NewRecorder(), make(chan struct{})}
				done := make(chan struct{})
				go func() {
					defer close(done)
					w.api.ServeHTTP(client, httptest.NewRequest(http.MethodGet, path, nil))
				}()
				synctest.Wait()
				begun := time.Now()
				w.must(201, "POST", "/v2/apps", `{"id":"/g/other","cmd":"x"}`)
				w.must(200, "GET", "/v2/apps", "")
				if time.Since(begun) > 0 {
					t.Errorf("a change took %s beside a client that does not read", time.Since(begun))
				}
				close(client.let)
				<-done
				if client.Body.Len() == 0 {
					t.Errorf("GET %s: no answer in the end", path)
				}
			})
		})
	}
}
