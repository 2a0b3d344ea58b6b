package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const importWithin = time.Minute // for one archive

// Image is one that an archive holds.
type Image struct {
	Name    string // "docker.io/marinaos/coredns:v1.15.0"
	Digest  string // of its manifest
	Archive string
}

// listImages reads what the OCI archives of a directory hold. It reads their indexes only.
func listImages(dir string) ([]Image, error) {
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar")) // sorted
	if err != nil {
		return nil, err
	}
	var images []Image
	for _, archive := range archives {
		in, err := readIndex(archive)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", archive, err)
		}
		images = append(images, in...)
	}
	return images, nil
}

func readIndex(archive string) ([]Image, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := tar.NewReader(f) // seeks over what is not asked for
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil, fmt.Errorf("no index.json: not an OCI archive")
		}
		if err != nil {
			return nil, err
		}
		if filepath.Clean(h.Name) != "index.json" {
			continue
		}
		var index struct {
			Manifests []struct {
				Digest      string            `json:"digest"`
				Annotations map[string]string `json:"annotations"`
			} `json:"manifests"`
		}
		if err := json.NewDecoder(io.LimitReader(r, maxConfig)).Decode(&index); err != nil {
			return nil, fmt.Errorf("index.json: %w", err)
		}
		var images []Image
		for _, m := range index.Manifests {
			if name := m.Annotations["io.containerd.image.name"]; name != "" {
				images = append(images, Image{Name: name, Digest: m.Digest, Archive: archive})
			}
		}
		return images, nil
	}
}

// missing lists the archives with an image that containerd does not have, or has another of by that name. listed is what
// `ctr images list` says: a line for each, with name, media type and digest.
func missing(images []Image, listed string) []string {
	have := map[string]string{}
	for line := range strings.Lines(listed) {
		if f := strings.Fields(line); len(f) >= 3 {
			have[f[0]] = f[2]
		}
	}
	var archives []string
	for _, image := range images {
		if have[image.Name] != image.Digest && (len(archives) == 0 || archives[len(archives)-1] != image.Archive) {
			archives = append(archives, image.Archive)
		}
	}
	return archives
}

// importImages gives containerd what it does not have yet.
func (n *Node) importImages(ctx context.Context, images []Image) error {
	if len(images) == 0 {
		return nil
	}
	listed, err := n.ctr(ctx, "images", "list")
	if err != nil {
		return err
	}
	for _, archive := range missing(images, listed) {
		if _, err := n.ctr(ctx, "images", "import", archive); err != nil {
			return fmt.Errorf("%s: %w", archive, err)
		}
		n.log.Say("imported %s", filepath.Base(archive))
	}
	return nil
}

// ctr runs containerd's own client and returns what it said.
func (n *Node) ctr(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, importWithin)
	defer cancel()
	args = append([]string{runtimeDir + "/ctr", "--address", socket, "--namespace", "k8s.io"}, args...)
	return n.reaper.Output(ctx, args, n.env)
}
