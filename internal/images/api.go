package images

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/access"
)

// Handler serves /images/v1: GET lists, POST (an archive, ?name=) loads, DELETE /images/v1/{reference} removes. It asks
// z.
func (s *Images) Handler(z access.Authorizer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /images/v1", func(w http.ResponseWriter, r *http.Request) {
		all, err := s.List(r.Context())
		all = slices.DeleteFunc(all, func(i Image) bool {
			return !access.Allowed(r.Context(), z, access.Read, access.Images.Of(i.Name))
		})
		s.answer(w, r, http.StatusOK, map[string]any{"images": all}, err)
	})
	mux.HandleFunc("POST /images/v1", func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Query().Get("name")
		var loaded []Image
		err := access.Check(r.Context(), z, access.Create, access.Images.Of(name))
		if err == nil {
			loaded, err = s.Load(r.Context(), r.Body, name)
		}
		s.answer(w, r, http.StatusCreated, map[string]any{"images": loaded}, err)
	})
	mux.HandleFunc("DELETE /images/v1/{reference...}", func(w http.ResponseWriter, r *http.Request) {
		err := access.Check(r.Context(), z, access.Delete, access.Images.Of(r.PathValue("reference")))
		if err == nil {
			err = s.Remove(r.Context(), r.PathValue("reference"))
		}
		s.answer(w, r, http.StatusOK, map[string]any{}, err)
	})
	return mux
}

// answer writes body, or what became of it instead. What is not the client's to know is in the log.
func (s *Images) answer(w http.ResponseWriter, r *http.Request, code int, body any, err error) {
	if err != nil {
		message := err.Error()
		switch {
		case errdefs.IsNotFound(err):
			code = http.StatusNotFound
		case errdefs.IsInvalidArgument(err):
			code = http.StatusBadRequest
		case errdefs.IsPermissionDenied(err):
			code = http.StatusForbidden
		case errdefs.IsUnavailable(err):
			code = http.StatusServiceUnavailable
		case errdefs.IsResourceExhausted(err):
			code = http.StatusInsufficientStorage
		default:
			s.log.Error("image request failed", "path", r.URL.Path, "err", err)
			code, message = http.StatusInternalServerError, "it could not be done; the daemon's log says why"
		}
		body = map[string]string{"message": message}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body)
}

var pull = regexp.MustCompile(`^/v2/([a-z0-9._/-]{1,255})/(manifests|blobs)/([A-Za-z0-9._:-]{1,128})$`)

// Registry serves the reading half of the registry protocol to agents: the registry a reference names comes in the
// query parameter "ns", as containerd's mirrors send it.
func (s *Images) Registry() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED",
				"this registry is read-only, load images with `marina image load`")
			return
		}
		if r.URL.Path == "/v2/" || r.URL.Path == "/v2" {
			w.WriteHeader(http.StatusOK)
			return
		}
		m := pull.FindStringSubmatch(r.URL.Path)
		if m == nil {
			refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "no such path")
			return
		}
		if m[2] == "manifests" {
			s.serveManifest(w, r, m[1], m[3])
			return
		}
		s.serveBlob(w, r, m[3], "application/octet-stream")
	})
}

func (s *Images) serveManifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	if strings.HasPrefix(reference, "sha256:") {
		mediaType, err := s.mediaType(reference)
		if err != nil {
			refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "no such manifest")
			return
		}
		s.serveBlob(w, r, reference, mediaType)
		return
	}
	registry := r.URL.Query().Get("ns")
	if registry == "" {
		registry = "docker.io"
	}
	img, err := s.Get(r.Context(), registry+"/"+repository+":"+reference)
	if err != nil {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "no image "+repository+":"+reference)
		return
	}
	s.serveBlob(w, r, img.Digest, img.MediaType)
}

// mediaType reads what a manifest says it is; older ones say nothing and are OCI's.
func (s *Images) mediaType(digest string) (string, error) {
	b, err := s.read(strings.TrimPrefix(digest, "sha256:"))
	if err != nil {
		return "", err
	}
	var m struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return "", err
	}
	switch {
	case m.MediaType != "":
		return m.MediaType, nil
	case m.Manifests != nil:
		return "application/vnd.oci.image.index.v1+json", nil
	}
	return "application/vnd.oci.image.manifest.v1+json", nil
}

func (s *Images) serveBlob(w http.ResponseWriter, r *http.Request, digest, mediaType string) {
	hexDigest, ok := strings.CutPrefix(digest, "sha256:")
	f, err := s.root.Open("blobs/" + hexDigest)
	if !ok || len(hexDigest) != 64 || errors.Is(err, os.ErrNotExist) {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "no such blob")
		return
	}
	if err != nil {
		s.log.Error("blob unreadable", "digest", digest, "err", err)
		refuse(w, http.StatusInternalServerError, "UNKNOWN", "blob unreadable")
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		refuse(w, http.StatusInternalServerError, "UNKNOWN", "blob unreadable")
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("Content-Length", strconv.FormatInt(fi.Size(), 10))
	http.ServeContent(w, r, "", fi.ModTime(), f)
}

func refuse(w http.ResponseWriter, code int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": kind, "message": message}}})
}
