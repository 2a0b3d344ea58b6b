package archive

import (
	"archive/tar"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// maxIndex bounds what is read of an archive's table of contents.
const maxIndex = 4 << 20

// Names is the images that an archive names: the complete name of each by the one in the archive.
type Names map[string]string

// Complete lists the complete names, sorted.
func (n Names) Complete() []string { return slices.Compact(slices.Sorted(maps.Values(n))) }

// ReadNames is NamesOf a file.
func ReadNames(path string) (Names, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return NamesOf(f)
}

// NamesOf reads which images an archive names (OCI or Docker). One that names none, or is cut off, is an
// errdefs.ErrInvalidArgument.
func NamesOf(archive io.Reader) (Names, error) {
	var found []string
	t := tar.NewReader(archive)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, invalid("this is no image archive (what `docker save` or `crane pull` write): %v", err)
		}
		switch path.Clean(h.Name) {
		case "index.json": // OCI
			var index struct {
				Manifests []struct {
					Annotations map[string]string `json:"annotations"`
				} `json:"manifests"`
			}
			if err := json.NewDecoder(io.LimitReader(t, maxIndex)).Decode(&index); err != nil {
				return nil, invalid("the archive's index.json cannot be read: %v", err)
			}
			for _, m := range index.Manifests {
				name := m.Annotations["io.containerd.image.name"]
				found = append(found, cmp.Or(name, m.Annotations["org.opencontainers.image.ref.name"]))
			}
		case "manifest.json": // Docker
			var list []struct{ RepoTags []string }
			if err := json.NewDecoder(io.LimitReader(t, maxIndex)).Decode(&list); err != nil {
				return nil, invalid("the archive's manifest.json cannot be read: %v", err)
			}
			for _, m := range list {
				found = append(found, m.RepoTags...)
			}
		}
	}
	out := Names{}
	for _, raw := range found {
		if ref, err := reference.ParseDockerRef(raw); err == nil && raw != "" {
			out[raw] = ref.String()
		}
	}
	if len(out) == 0 {
		return nil, invalid("the archive names no image: save it with its name, as in `docker save NAME:TAG`")
	}
	return out, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
