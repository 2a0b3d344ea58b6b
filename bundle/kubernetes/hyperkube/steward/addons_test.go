package steward

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// bundleOf is a bundle with manifests by file name.
func bundleOf(t *testing.T, manifests map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "manifests"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range manifests {
		if err := os.WriteFile(filepath.Join(dir, "manifests", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func configMap(name string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: kube-system}\n", name)
}

const metricsAPI = "---\napiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: v1beta1.metrics.k8s.io}\n"

const inSystem = "/api/v1/namespaces/kube-system/configmaps/"

// addonsOf applies a bundle to a twin.
func addonsOf(t *testing.T, api *twin, bundle string) *addons {
	t.Helper()
	srv := httptest.NewServer(api)
	t.Cleanup(srv.Close)
	cfg := &rest.Config{Host: srv.URL}
	objects, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	names, err := metadata.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &addons{cfg: &Config{Addons: bundle}, objects: objects, names: names}
}

// applied is the mark of an object that somebody applied.
func applied(by string) object {
	return object{"metadata": object{"namespace": "kube-system", "labels": object{addonLabel: "old"},
		"managedFields": []object{{"manager": by, "operation": "Apply"}}}}
}

func TestAddonsAreAppliedInOrderAndOldOnesRemoved(t *testing.T) {
	api := newTwin()
	a := addonsOf(t, api, bundleOf(t, map[string]string{"20-two.yaml": configMap("two") + "---\n" + configMap("three") + metricsAPI,
		"10-one.yaml": configMap("one")}))
	api.put(inSystem+"old", "ConfigMap", applied(fieldManager))
	api.put(inSystem+"copied", "ConfigMap", applied("kubectl"))
	if err := a.apply(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	want := []string{"PATCH " + inSystem + "one", "PATCH " + inSystem + "two", "PATCH " + inSystem + "three",
		"PATCH /apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"}
	if got := api.writes("PATCH"); !slices.Equal(got, want) {
		t.Errorf("applied: got %v, want %v", got, want)
	}
	if got := api.writes("DELETE"); !slices.Equal(got, []string{"DELETE " + inSystem + "old"}) {
		t.Errorf("removed: got %v, want old alone: a copy with the label is somebody's", got)
	}
	before := len(api.writes("DELETE"))
	if err := a.apply(t.Context(), false); err != nil || len(api.writes("DELETE")) != before {
		t.Errorf("again: %v, removed %v", err, api.writes("DELETE"))
	}
}

func TestAClusterWithoutNodesGetsNoAggregatedAPIs(t *testing.T) {
	api := newTwin()
	a := addonsOf(t, api, bundleOf(t, map[string]string{"10-one.yaml": configMap("one") + metricsAPI}))
	metrics := applied(fieldManager)
	metrics["apiVersion"] = "apiregistration.k8s.io/v1"
	delete(metrics["metadata"].(object), "namespace")
	api.put("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io", "APIService", metrics)
	if err := a.apply(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if got := api.writes("PATCH"); !slices.Equal(got, []string{"PATCH " + inSystem + "one"}) {
		t.Errorf("applied: got %v, want one alone", got)
	}
	if got := api.writes("DELETE /apis/apiregistration.k8s.io"); len(got) != 1 {
		t.Errorf("removed: got %v, want the API that nobody serves any more", got)
	}
}

// Half a bundle is no reason to remove what the other half had.
func TestNothingIsRemovedUnlessAllIsApplied(t *testing.T) {
	api := newTwin()
	api.put(inSystem+"old", "ConfigMap", applied(fieldManager))
	a := addonsOf(t, api, bundleOf(t, map[string]string{"10-one.yaml": configMap("one"), "20-two.yaml": configMap("two")}))
	api.answerWrongly(wrongly("configmaps/one", http.StatusForbidden,
		`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"one is not allowed","reason":"Forbidden","code":403}`))
	if err := a.apply(t.Context(), false); err == nil || !strings.Contains(err.Error(), "ConfigMap one: one is not allowed") {
		t.Errorf("refused: got %v, want which and why", err)
	}
	if got := api.writes("PATCH"); !slices.Equal(got, []string{"PATCH " + inSystem + "two"}) {
		t.Errorf("applied: got %v, want the others all the same", got)
	}
	api.answerWrongly(wrongly("/daemonsets", http.StatusInternalServerError, `{}`))
	if err := a.apply(t.Context(), false); err == nil || !strings.Contains(err.Error(), "daemonsets") {
		t.Errorf("a list that fails: got %v", err)
	}
	api.answerWrongly(nil)
	for what, bundle := range map[string]string{
		"an empty bundle":            bundleOf(t, nil),
		"a manifest that is torn":    bundleOf(t, map[string]string{"10-one.yaml": configMap("one"), "20-two.yaml": "kind: [\n"}),
		"a manifest without end":     bundleOf(t, map[string]string{"10-one.yaml": configMap("one") + strings.Repeat("#", maxManifest)}),
		"a template that is none":    bundleOf(t, map[string]string{"10-one.yaml": "{{.ClusterDNS"}),
		"a directory for a manifest": bundleWithDirectory(t),
	} {
		a.cfg.Addons = bundle
		if err := a.apply(t.Context(), false); err == nil {
			t.Errorf("%s was applied", what)
		}
	}
	if got := api.writes("DELETE"); len(got) > 1 { // the one of the round that failed later
		t.Errorf("removed: got %v", got)
	}
	if a.cfg.Addons = ""; a.apply(t.Context(), false) != nil {
		t.Error("a cluster without a bundle has add-ons to apply")
	}
}

func bundleWithDirectory(t *testing.T) string {
	dir := bundleOf(t, map[string]string{"10-one.yaml": configMap("one")})
	if err := os.Mkdir(filepath.Join(dir, "manifests", "20-two.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestArchivesThatCannotBeReadAreNoImages(t *testing.T) {
	bundle := t.TempDir()
	archive(t, bundle, "a.tar", "docker.io/marinaos/pause:v1")
	if ref, err := imageRef(bundle, "pause"); err != nil || ref != "docker.io/marinaos/pause:v1" {
		t.Errorf("got %q, %v", ref, err)
	}
	if _, err := imageRef(bundle, "paus"); err == nil {
		t.Error("a part of a name names an image")
	}
	for name, raw := range map[string]string{"no tar": "hello", "cut off": strings.Repeat("x", 512)} {
		at := filepath.Join(bundle, "images", "0.tar")
		if err := os.WriteFile(at, []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := imageRef(bundle, "pause"); err == nil || !strings.Contains(err.Error(), "0.tar") {
			t.Errorf("%s: got %v, want an error that names the file", name, err)
		}
	}
}
