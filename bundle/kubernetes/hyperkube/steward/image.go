package steward

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

const maxIndex = 1 << 20 // bytes of an archive's list of contents

// imageRef returns the reference that nodes import the add-on image of that name under, for example
// docker.io/marinaos/pause:v1. The archives themselves say it, so that it is written in one place.
func imageRef(bundle, name string) (string, error) {
	files, err := filepath.Glob(filepath.Join(bundle, "images", "*.tar"))
	if err != nil {
		return "", err
	}
	for _, f := range files {
		refs, err := archiveRefs(f)
		if err != nil {
			return "", fmt.Errorf("%s: %w", filepath.Base(f), err)
		}
		for _, r := range refs {
			if repo, _, _ := strings.Cut(path.Base(r), ":"); repo == name {
				return r, nil
			}
		}
	}
	return "", fmt.Errorf("no archive in %s has an image called %s", filepath.Join(bundle, "images"), name)
}

// archiveRefs reads what an archive calls its images: an OCI layout's index.json, or a Docker archive's manifest.json.
func archiveRefs(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var refs []string
	r := tar.NewReader(f) // skips what is not read by seeking
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return refs, nil
		}
		if err != nil {
			return nil, err
		}
		switch path.Clean(h.Name) {
		case "index.json":
			var index struct {
				Manifests []struct {
					Annotations map[string]string `json:"annotations"`
				} `json:"manifests"`
			}
			if err := json.NewDecoder(io.LimitReader(r, maxIndex)).Decode(&index); err != nil {
				return nil, err
			}
			for _, m := range index.Manifests {
				if ref := m.Annotations["io.containerd.image.name"]; ref != "" {
					refs = append(refs, ref)
				} else if ref := m.Annotations["org.opencontainers.image.ref.name"]; strings.Contains(ref, "/") {
					refs = append(refs, ref)
				}
			}
		case "manifest.json":
			var list []struct{ RepoTags []string }
			if err := json.NewDecoder(io.LimitReader(r, maxIndex)).Decode(&list); err != nil {
				return nil, err
			}
			for _, m := range list {
				refs = append(refs, m.RepoTags...)
			}
		}
	}
}
