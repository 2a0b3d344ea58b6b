// Command ociimage makes an OCI archive out of one static binary, without Docker and without a registry:
//
//	go run ./examples/ociimage -name hello:1 -o hello.tar ./hello
//
// The binary becomes /<base name> and the image's entrypoint; the user is nobody. Flags say otherwise: -path where the
// binary lies, -link a further name for it (again and again), -entrypoint what runs, -cmd what runs unless told
// otherwise,
// -user who runs it, -name a further reference. The same input gives the same archive, byte for byte; images of the
// same binary and links share their layer.
package main

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// spec describes the image to make.
type spec struct {
	binary     string   // on this machine
	path       string   // of it in the image, absolute
	links      []string // absolute, to path
	entrypoint []string
	cmd        []string
	user       string
	zstd       bool // compresses the layer by zstd, which unpacks several times faster than gzip; Docker may not read it
}

func main() {
	var s spec
	var names []string
	each := func(into *[]string) func(string) error {
		return func(v string) error { *into = append(*into, v); return nil }
	}
	flag.Func("name", "reference of the image, such as hello:1; may be repeated", each(&names))
	flag.Func("link", "a further path of the binary; may be repeated", each(&s.links))
	flag.Func("entrypoint", "what runs, a part of the command at a time (default the binary)", each(&s.entrypoint))
	flag.Func("cmd", "arguments, a part at a time; alone it is the command", each(&s.cmd))
	flag.StringVar(&s.path, "path", "", "where the binary lies in the image (default /<base name>)")
	flag.StringVar(&s.user, "user", "65534:65534", "who runs it")
	flag.BoolVar(&s.zstd, "zstd", false, "compress by zstd instead of gzip")
	out := flag.String("o", "", "archive to write")
	flag.Parse()
	if len(names) == 0 || *out == "" || flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: ociimage -name NAME:TAG -o ARCHIVE [flags] BINARY")
		os.Exit(2)
	}
	s.binary = flag.Arg(0)
	if s.path == "" {
		s.path = "/" + filepath.Base(s.binary)
	}
	if len(s.entrypoint) == 0 && len(s.cmd) == 0 {
		s.entrypoint = []string{s.path}
	}
	if err := run(s, names, *out); err != nil {
		fmt.Fprintln(os.Stderr, "ociimage:", err)
		os.Exit(1)
	}
}

func run(s spec, names []string, out string) error {
	img, err := s.image()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ociimage")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := p.AppendImage(img, layout.WithAnnotations(
			map[string]string{"io.containerd.image.name": name})); err != nil {
			return err
		}
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	if err := pack(f, os.DirFS(dir)); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// pack writes files in the order of their names and without times.
func pack(to io.Writer, from fs.FS) error {
	w := tar.NewWriter(to)
	err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644,
			Size: int64(len(content))}); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	if err != nil {
		return err
	}
	return w.Close()
}

// image is one layer that holds the binary and the directories every program expects.
func (s spec) image() (v1.Image, error) {
	content, err := os.ReadFile(s.binary)
	if err != nil {
		return nil, err
	}
	layer, err := s.layer(content)
	if err != nil {
		return nil, err
	}
	media, how := types.OCILayer, compression.GZip
	if s.zstd {
		media, how = types.OCILayerZStd, compression.ZStd
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil },
		tarball.WithMediaType(media), tarball.WithCompression(how), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.AppendLayers(img, l); err != nil {
		return nil, err
	}
	dirs := []string{path.Dir(s.path)}
	for _, link := range s.links {
		if d := path.Dir(link); !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	slices.Sort(dirs)
	return mutate.ConfigFile(img, &v1.ConfigFile{
		Architecture: runtime.GOARCH, OS: "linux",
		Config: v1.Config{Entrypoint: s.entrypoint, Cmd: s.cmd, User: s.user, WorkingDir: "/",
			Env: []string{"PATH=" + strings.Join(dirs, ":")}},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: must(img.ConfigFile()).RootFS.DiffIDs},
	})
}

func (s spec) layer(content []byte) ([]byte, error) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	made := map[string]bool{"/": true}
	var err error
	add := func(h *tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err == nil {
			err = w.WriteHeader(h)
		}
		if err == nil {
			_, err = w.Write(content)
		}
	}
	var dir func(name string, mode int64)
	dir = func(name string, mode int64) {
		if !made[name] {
			dir(path.Dir(name), 0o755)
			made[name] = true
			add(&tar.Header{Typeflag: tar.TypeDir, Name: name[1:] + "/", Mode: mode}, nil)
		}
	}
	dir("/etc", 0o755)
	dir("/tmp", 0o1777)
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte(passwd))
	dir(path.Dir(s.path), 0o755)
	add(&tar.Header{Typeflag: tar.TypeReg, Name: s.path[1:], Mode: 0o755}, content)
	for _, link := range s.links {
		dir(path.Dir(link), 0o755)
		add(&tar.Header{Typeflag: tar.TypeSymlink, Name: link[1:], Linkname: s.path, Mode: 0o777}, nil)
	}
	if err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return layer.Bytes(), nil
}

const passwd = "root:x:0:0:root:/:/none\nnobody:x:65534:65534:nobody:/:/none\n"

func must(c *v1.ConfigFile, err error) *v1.ConfigFile {
	if err != nil {
		panic(err) // an image made in memory has a config
	}
	return c
}
