package images

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/marinaos/marina/internal/store"
)

var blobName = regexp.MustCompile(`^blobs/sha256/([0-9a-f]{64})$`)

// emptyIndex is the index of a fresh layout.
var emptyIndex = empty.Index

// Load reads an archive and keeps every image in it. as names the image if the archive does not, or names it otherwise
// than wanted; it is an error if the archive holds several. Nothing is kept under any name unless all of it is whole.
// Errors of kind ErrInvalidArgument say what is wrong with the archive.
func (s *Images) Load(ctx context.Context, archive io.Reader, as string) ([]Image, error) {
	s.collecting.RLock()
	defer s.collecting.RUnlock()
	found, err := s.unpack(archive)
	if err != nil {
		return nil, err
	}
	if as != "" {
		if len(found) != 1 {
			return nil, bad("the archive holds %d images, a name can be given to one", len(found))
		}
		found[0].Name = as
	}
	guard, err := s.fence()
	if err != nil {
		return nil, err
	}
	txn := store.Txn{Guards: []store.Guard{guard}}
	for i := range found {
		img := &found[i]
		if img.Name == "" {
			return nil, bad("the archive does not name its image: give a name with --name")
		}
		if img.Name, err = Normalize(img.Name); err != nil {
			return nil, err
		}
		if img.Size, err = s.measure(img.Digest, 0); err != nil {
			return nil, err
		}
		img.Loaded = s.now().UTC()
		op, err := s.table.Put(img.Name, *img)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", img.Name, err)
		}
		txn.Ops = append(txn.Ops, op)
	}
	if len(found) == 0 {
		return nil, bad("the archive holds no image")
	}
	if err := s.syncBlobs(); err != nil {
		return nil, err
	}
	if _, err := s.st.Commit(ctx, txn); err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	for _, img := range found {
		s.log.Info("image loaded", "image", img.Name, "digest", img.Digest)
	}
	return found, nil
}

// unpack moves the blobs of an archive into the content directory and returns the images its index names.
func (s *Images) unpack(archive io.Reader) ([]Image, error) {
	dir := "incoming/" + rand.Text()
	if err := s.root.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	var spooled taking
	defer func() {
		_ = s.root.RemoveAll(dir) // what stays is removed by the next start or Collect
		s.space.give(spooled.n)
	}()

	spool, err := s.root.Create(dir + "/archive.tar")
	if err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	defer spool.Close()
	plain, err := gunzipped(io.LimitReader(archive, MaxArchive+1))
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(s.meter(spool, &spooled), io.LimitReader(plain, MaxArchive+1))
	if err != nil {
		return nil, fmt.Errorf("image archive could not be received: %w", err)
	}
	if n > MaxArchive {
		return nil, bad("the archive is larger than %d GiB", MaxArchive>>30)
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	found, err := s.extract(spool)
	switch {
	case err != nil:
		return nil, err
	case found.index != nil:
		return s.fromIndex(found.index)
	case found.docker:
		if err := s.reserve(&spooled, n); err != nil { // its layers are written once more before they are kept
			return nil, err
		}
		return s.fromDocker(spool.Name(), dir, found.sizes)
	}
	return nil, bad("it has neither index.json (an OCI layout) nor manifest.json (docker save)")
}

func gunzipped(r io.Reader) (io.Reader, error) {
	head := make([]byte, 2)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, bad("it is empty")
	}
	whole := io.MultiReader(strings.NewReader(string(head[:n])), r)
	if n == 2 && head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(whole)
		if err != nil {
			return nil, bad("it is not valid gzip")
		}
		return z, nil
	}
	return whole, nil
}

// contents holds what an archive has beside its blobs.
type contents struct {
	index  []byte           // index.json; nil: it is no OCI layout
	docker bool             // it has a manifest.json
	sizes  map[string]int64 // of its files by name
}

// extract keeps the OCI blobs of a tar.
func (s *Images) extract(r io.Reader) (found contents, err error) {
	found.sizes = map[string]int64{}
	tr := tar.NewReader(r)
	for i := 0; ; i++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, bad("it is not a tar file")
		}
		if i >= MaxEntries {
			return found, bad("it has more than %d entries", MaxEntries)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		found.sizes[h.Name] = h.Size
		switch name := strings.TrimPrefix(h.Name, "./"); {
		case name == "index.json":
			if found.index, err = io.ReadAll(io.LimitReader(tr, MaxManifest)); err != nil {
				return found, bad("its index.json cannot be read")
			}
		case name == "manifest.json":
			if found.docker = true; h.Size > MaxManifest {
				return found, bad("its manifest.json has %d bytes, at most %d are read", h.Size, MaxManifest)
			}
		case blobName.MatchString(name):
			if err := s.keep(tr, blobName.FindStringSubmatch(name)[1]); err != nil {
				return found, err
			}
		}
	}
}

// keep writes a blob under its digest, unless it is there already; content that does not match is refused.
func (s *Images) keep(r io.Reader, hexDigest string) (err error) {
	final := "blobs/" + hexDigest
	if _, err := s.root.Stat(final); err == nil {
		return nil
	}
	temp := "incoming/" + rand.Text()
	f, err := s.root.Create(temp)
	if err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	var taken taking
	defer func() {
		if err != nil {
			_ = s.root.Remove(temp) // what stays is removed by the next start or Collect
			s.space.give(taken.n)
		}
	}()
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(s.meter(io.MultiWriter(f, sum), &taken), r); err != nil {
		return fmt.Errorf("image store: blob %.12s: %w", hexDigest, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != hexDigest {
		return bad("its blob %.12s has the content of %.12s: the file is damaged", hexDigest, got)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("image store: blob %.12s: %w", hexDigest, err)
	}
	return s.root.Rename(temp, final)
}

// syncBlobs makes the names of blobs durable, before a row needs them.
func (s *Images) syncBlobs() error {
	dir, err := s.root.Open("blobs")
	if err == nil {
		err = errors.Join(dir.Sync(), dir.Close())
	}
	if err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	return nil
}

func (s *Images) fromIndex(index []byte) ([]Image, error) {
	m, err := v1.ParseIndexManifest(strings.NewReader(string(index)))
	if err != nil {
		return nil, bad("its index.json is not an image index")
	}
	var out []Image
	for _, d := range m.Manifests {
		name := d.Annotations["io.containerd.image.name"]
		if ref := d.Annotations["org.opencontainers.image.ref.name"]; name == "" && strings.ContainsAny(ref, ":/") {
			name = ref
		}
		out = append(out, Image{Name: name, Digest: d.Digest.String(), MediaType: string(d.MediaType)})
	}
	return out, nil
}

// fromDocker turns a docker archive into an OCI layout beside it and takes its blobs from there.
// sizes are of the archive's files: what is read into memory has a limit.
func (s *Images) fromDocker(tarPath, dir string, sizes map[string]int64) ([]Image, error) {
	open := func() (io.ReadCloser, error) { return os.Open(tarPath) }
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return nil, bad("its manifest.json is not one of docker save")
	}
	var out []Image
	for _, d := range manifest {
		if n := sizes[d.Config]; n > MaxManifest {
			return nil, bad("its config has %d bytes, at most %d are read", n, MaxManifest)
		}
		for _, tag := range d.RepoTags {
			img, err := tarball.ImageFromPath(tarPath, nil)
			if len(manifest) > 1 || err != nil {
				return nil, bad("a docker archive may hold one image: %v", err)
			}
			digest, err := s.keepImage(img, dir)
			if err != nil {
				return nil, err
			}
			out = append(out, Image{Name: tag, Digest: digest, MediaType: string(types.DockerManifestSchema2)})
		}
	}
	return out, nil
}

func (s *Images) keepImage(img v1.Image, dir string) (string, error) {
	at := s.root.Name() + "/" + dir + "/layout"
	p, err := layout.FromPath(at)
	if err != nil {
		if p, err = layout.Write(at, emptyIndex); err != nil {
			return "", fmt.Errorf("image store: %w", err)
		}
	}
	if err := p.AppendImage(img); err != nil {
		return "", bad("its layers cannot be read: %v", err)
	}
	entries, err := fs.ReadDir(os.DirFS(at), "blobs/sha256")
	if err != nil {
		return "", fmt.Errorf("image store: %w", err)
	}
	for _, e := range entries {
		f, err := os.Open(at + "/blobs/sha256/" + e.Name())
		if err != nil {
			return "", fmt.Errorf("image store: %w", err)
		}
		err = s.keep(f, e.Name())
		f.Close()
		if err != nil {
			return "", err
		}
	}
	d, err := img.Digest()
	if err != nil {
		return "", bad("its manifest cannot be read: %v", err)
	}
	return d.String(), nil
}

// measure walks everything a manifest needs, and fails if a blob of it is missing.
func (s *Images) measure(digest string, depth int) (int64, error) {
	var total int64
	err := s.walk(digest, depth, func(_ string, size int64) { total += size })
	return total, err
}

// walk calls visit for a manifest and all blobs below it.
func (s *Images) walk(digest string, depth int, visit func(hexDigest string, size int64)) error {
	hexDigest, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || depth > 3 {
		return bad("manifest %q is not one this store can keep", digest)
	}
	b, err := s.read(hexDigest)
	if err != nil {
		return err
	}
	visit(hexDigest, int64(len(b)))
	var m struct {
		Config    *v1.Descriptor  `json:"config"`
		Layers    []v1.Descriptor `json:"layers"`
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return bad("manifest %.19s is not JSON", digest)
	}
	for _, d := range m.Manifests {
		if _, err := s.root.Stat("blobs/" + d.Digest.Hex); err != nil {
			continue // an index may name platforms the archive leaves out
		}
		if err := s.walk(d.Digest.String(), depth+1, visit); err != nil {
			return err
		}
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, d := range m.Layers {
		fi, err := s.root.Stat("blobs/" + d.Digest.Hex)
		if err != nil {
			return bad("blob %.19s that its manifest names is not in it", d.Digest.String())
		}
		visit(d.Digest.Hex, fi.Size())
	}
	return nil
}

func (s *Images) read(hexDigest string) ([]byte, error) {
	f, err := s.root.Open("blobs/" + hexDigest)
	if err != nil {
		return nil, bad("blob %.12s that its index names is not in it", hexDigest)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxManifest+1))
	if err == nil && len(b) > MaxManifest {
		err = bad("manifest %.12s is larger than %d bytes", hexDigest, MaxManifest)
	}
	return b, err
}

// Collect removes content that no image names.
func (s *Images) Collect(ctx context.Context) error {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	all, err := s.List(ctx)
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, img := range all {
		if err := s.walk(img.Digest, 0, func(h string, _ int64) { used[h] = true }); err != nil {
			return fmt.Errorf("image %s: nothing collected: %w", img.Name, err)
		}
	}
	for _, dir := range []string{"blobs", "incoming"} {
		entries, err := fs.ReadDir(s.root.FS(), dir)
		if err != nil {
			return fmt.Errorf("image store: %w", err)
		}
		for _, e := range entries {
			if dir == "blobs" && used[e.Name()] {
				continue
			}
			if err := s.root.RemoveAll(dir + "/" + e.Name()); err != nil {
				return fmt.Errorf("image store: %w", err)
			}
		}
	}
	return s.measureAll() // nobody loads now
}

func bad(format string, args ...any) error {
	return fmt.Errorf("image archive: "+format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
