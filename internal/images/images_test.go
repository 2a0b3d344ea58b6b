package images

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

func open(t *testing.T) *Images {
	t.Helper()
	st := memory.New()
	leads := func() (store.Guard, error) { return store.Absent("nobody"), nil }
	s, err := New(t.TempDir(), st, leads, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// archive is an OCI layout as a tar; edit may change or drop (nil) files of it.
func archive(t *testing.T, img v1.Image, ref string, edit func(name string, content []byte) (string, []byte)) []byte {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{"io.containerd.image.name": ref})); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err = fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			return err
		}
		if edit != nil {
			if p, b = edit(p, b); b == nil {
				return nil
			}
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: p, Mode: 0o644, Size: int64(len(b))}); err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	return out.Bytes()
}

// padded rewrites a tar with spaces behind the content of files whose name begins so.
func padded(t *testing.T, plain []byte, prefix string, size int) []byte {
	t.Helper()
	var out bytes.Buffer
	r, w := tar.NewReader(bytes.NewReader(plain)), tar.NewWriter(&out)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(h.Name, prefix) {
			b = append(b, bytes.Repeat([]byte(" "), max(0, size-len(b)))...)
		}
		h.Size = int64(len(b))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func picture(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(1000, 3)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestLoadedImageCanBePulledByItsName(t *testing.T) {
	s, img := open(t), picture(t)
	loaded, err := s.Load(t.Context(), bytes.NewReader(archive(t, img, "hello:1", nil)), "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := loaded[0].Name, "docker.io/library/hello:1"; got != want {
		t.Errorf("name %q, want %q", got, want)
	}
	pullsBack(t, s, img, "library/hello:1")
}

func TestDockerArchiveIsLoadedToo(t *testing.T) {
	s, img := open(t), picture(t)
	tag, err := name.NewTag("tools/web:2")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tarball.Write(tag, img, &b); err != nil {
		t.Fatal(err)
	}
	loaded, err := s.Load(t.Context(), &b, "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := loaded[0].Name, "docker.io/tools/web:2"; got != want {
		t.Errorf("name %q, want %q", got, want)
	}
	pullsBack(t, s, img, "tools/web:2")
}

func pullsBack(t *testing.T, s *Images, want v1.Image, ref string) {
	t.Helper()
	srv := httptest.NewServer(s.Registry())
	defer srv.Close()
	r, err := name.ParseReference(strings.TrimPrefix(srv.URL, "http://")+"/"+ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(r, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	wantConfig, _ := want.ConfigName()
	gotConfig, err := got.ConfigName()
	if err != nil || gotConfig != wantConfig {
		t.Errorf("config %v (%v), want %v", gotConfig, err, wantConfig)
	}
}

func TestDamagedArchivesAreRefusedAndLeaveNoImage(t *testing.T) {
	big := func(name string, b []byte) bool { return strings.HasPrefix(name, "blobs/") && len(b) > 900 }
	for what, tc := range map[string]struct {
		edit func(string, []byte) (string, []byte)
		says string
	}{
		"flipped bit": {func(n string, b []byte) (string, []byte) {
			if big(n, b) {
				b = bytes.Clone(b)
				b[len(b)/2] ^= 1
			}
			return n, b
		}, "damaged"},
		"missing layer": {func(n string, b []byte) (string, []byte) {
			if big(n, b) {
				return n, nil
			}
			return n, b
		}, "not in it"},
		"no index": {func(n string, b []byte) (string, []byte) {
			if n == "index.json" {
				return n, nil
			}
			return n, b
		}, "neither index.json"},
		"names with tricks": {func(n string, b []byte) (string, []byte) {
			if big(n, b) {
				return "blobs/sha256/../../../escape", b
			}
			return n, b
		}, "not in it"},
	} {
		t.Run(what, func(t *testing.T) {
			s := open(t)
			_, err := s.Load(t.Context(), bytes.NewReader(archive(t, picture(t), "x:1", tc.edit)), "")
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want an invalid argument that says %q", err, tc.says)
			}
			if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("images %v (%v), want none", all, err)
			}
			for _, n := range []string{"escape", "../escape"} {
				if _, err := os.Stat(filepath.Join(s.root.Name(), n)); err == nil {
					t.Errorf("%s was written", n)
				}
			}
		})
	}
	for what, b := range map[string]string{"empty": "", "text": "hello, world, this is not an archive", "gzip of nothing": "\x1f\x8b"} {
		if _, err := open(t).Load(t.Context(), strings.NewReader(b), ""); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v, want an invalid argument", what, err)
		}
	}
}

func TestRemoveCollectsOnlyWhatNothingElseNames(t *testing.T) {
	s, img := open(t), picture(t)
	for _, ref := range []string{"a:1", "b:1"} {
		if _, err := s.Load(t.Context(), bytes.NewReader(archive(t, img, ref, nil)), ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(t.Context(), "a:1"); err != nil {
		t.Fatal(err)
	}
	pullsBack(t, s, img, "library/b:1")
	if err := s.Remove(t.Context(), "b:1"); err != nil {
		t.Fatal(err)
	}
	left, err := fs.ReadDir(s.root.FS(), "blobs")
	if err != nil || len(left) != 0 {
		t.Errorf("%d blobs left (%v), want none", len(left), err)
	}
	if err := s.Remove(t.Context(), "b:1"); !errdefs.IsNotFound(err) {
		t.Errorf("second removal: %v, want not found", err)
	}
}

func TestReferencesAreNormalizedAsEverybodyDoes(t *testing.T) {
	for in, want := range map[string]string{
		"hello":                  "docker.io/library/hello:latest",
		"hello:1":                "docker.io/library/hello:1",
		"team/web:2":             "docker.io/team/web:2",
		"docker.io/hello:1":      "docker.io/library/hello:1",
		"example.org/a/b:3":      "example.org/a/b:3",
		"localhost:5000/hello:1": "localhost:5000/hello:1",
	} {
		if got, err := Normalize(in); err != nil || got != want {
			t.Errorf("Normalize(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "UPPER:1", "../x", "a b", strings.Repeat("a", 10_000), "x:" + strings.Repeat("y", 200)} {
		if got, err := Normalize(in); !errdefs.IsInvalidArgument(err) {
			t.Errorf("Normalize(%.20q) = %q, %v; want an invalid argument", in, got, err)
		}
	}
}
