package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func TestTheSameInputGivesTheSameArchive(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "tool")
	if err := os.WriteFile(binary, []byte("a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := spec{binary: binary, path: "/bin/tool", links: []string{"/usr/bin/other"}, cmd: []string{"tool"}, user: "0:0"}
	var archives [2][]byte
	for i := range archives {
		out := filepath.Join(dir, "out.tar")
		if err := run(s, []string{"a:1", "b:2"}, out); err != nil {
			t.Fatal(err)
		}
		var err error
		if archives[i], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("got two archives, want one")
	}
	img := open(t, archives[0], 2)
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(c.Config.Env, " "), "PATH=/bin:/usr/bin"; got != want || len(c.Config.Entrypoint) != 0 || c.Config.Cmd[0] != "tool" {
		t.Errorf("got %s, entrypoint %v, cmd %v, want %s, none and tool", got, c.Config.Entrypoint, c.Config.Cmd, want)
	}
	s.entrypoint, s.cmd = []string{"/usr/bin/other"}, nil
	other, err := s.image()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := layerOf(t, other), layerOf(t, img); got != want {
		t.Errorf("got layer %v for another entrypoint, want %v as well", got, want)
	}
}

// open unpacks an archive, and returns its first image of so many, which it has validated.
func open(t *testing.T, archive []byte, n int) v1.Image {
	t.Helper()
	dir := t.TempDir()
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil || len(m.Manifests) != n {
		t.Fatalf("got %d images, %v, want %d", len(m.Manifests), err, n)
	}
	img, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Errorf("not a valid image: %v", err)
	}
	return img
}

func layerOf(t *testing.T, img v1.Image) v1.Hash {
	t.Helper()
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("got %d layers, %v, want one", len(layers), err)
	}
	d, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}
