package archive

import (
	"archive/tar"
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
)

func tarOf(t *testing.T, files map[string]string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestArchivesNamesAreMadeComplete(t *testing.T) {
	for what, c := range map[string]struct {
		files map[string]string
		want  map[string]string
	}{
		"OCI": {map[string]string{"index.json": `{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"hello:1"}}]}`},
			map[string]string{"hello:1": "docker.io/library/hello:1"}},
		"OCI by containerd": {map[string]string{"index.json": `{"manifests":[{"annotations":{"io.containerd.image.name":"quay.io/a/b:2","org.opencontainers.image.ref.name":"2"}}]}`},
			map[string]string{"quay.io/a/b:2": "quay.io/a/b:2"}},
		"Docker": {map[string]string{"manifest.json": `[{"RepoTags":["a/b:3","c"]}]`},
			map[string]string{"a/b:3": "docker.io/a/b:3", "c": "docker.io/library/c:latest"}},
	} {
		whole := tarOf(t, c.files)
		cut := bytes.NewReader(whole.Bytes()[:530])
		got, err := NamesOf(whole)
		if err != nil || !maps.Equal(got, c.want) {
			t.Errorf("%s: got %v, %v, want %v", what, got, err, c.want)
		}
		if got, err := NamesOf(cut); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s, cut off: got %v, %v, want a refusal", what, got, err)
		}
	}
	for what, b := range map[string]*bytes.Buffer{"no tar": bytes.NewBufferString("hello"),
		"no index": tarOf(t, map[string]string{"x": "y"}),
		"no name":  tarOf(t, map[string]string{"index.json": `{"manifests":[{}]}`}),
		"no JSON":  tarOf(t, map[string]string{"index.json": `[`})} {
		if got, err := NamesOf(b); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v, %v, want a refusal", what, got, err)
		}
	}
}
