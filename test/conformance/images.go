package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// recipe says how an image of upstream's tests is built here. What upstream takes of Alpine is Debian's: the same
// programs, of another distribution.
type recipe struct {
	packages []string          // Debian's, with what they depend on
	busybox  bool              // and links for all that busybox can do, where nothing else has the name
	programs map[string]string // by where they go: packages of Go
	setuid   bool              // the programs run as their owner, root
	files    map[string]string // by where they go: files of Kubernetes' source tree
	fill     func(*Rootfs)     // what else
	config   v1.Config
}

const searched = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// busyboxFrom is the release of Debian whose busybox tests get: as upstream's and unlike that of Debian 12, its shell
// keeps environment variables with a dash in their names, which ConfigMaps have.
const busyboxFrom = "trixie"

// nettools lists the programs that tests run in agnhost's shell.
var nettools = []string{"bash", "curl", "bind9-dnsutils", "netcat-openbsd", "iproute2", "util-linux", "socat",
	"iperf", "libc-bin"}

var agnhost = recipe{
	packages: nettools, busybox: true,
	programs: map[string]string{"agnhost": "k8s.io/kubernetes/test/images/agnhost"},
	files: map[string]string{"localhost.crt": "test/images/agnhost/porter/localhost.crt",
		"localhost.key": "test/images/agnhost/porter/localhost.key"},
	fill: func(r *Rootfs) {
		r.dir("uploads", 0o755)
		r.link("agnhost-2", "agnhost")
		r.link("usr/bin/nc", "nc.openbsd")
		r.link("usr/bin/sh", "bash") // busybox as a shell runs its own nc
	},
	config: v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, Env: []string{searched}},
}

// pet is agnhost with a picture.
func pet(name string) recipe {
	r := agnhost
	r.files = map[string]string{name + ".jpg": "test/images/" + name + "/html/" + name + ".jpg",
		"data.json": "test/images/" + name + "/html/data.json"}
	r.config.Cmd = []string{"test-webserver"}
	return r
}

// recipes are by the names of images without registry and tag.
var recipes = map[string]recipe{
	"agnhost":  agnhost,
	"kitten":   pet("kitten"),
	"nautilus": pet("nautilus"),
	"busybox":  {busybox: true, config: v1.Config{Cmd: []string{"sh"}, Env: []string{searched}}},
	"nonroot":  {busybox: true, config: v1.Config{Cmd: []string{"sh"}, Env: []string{searched}, User: "1234"}},
	"glibc-dns-testing": {packages: nettools, busybox: true, config: v1.Config{Cmd: []string{"bash"},
		Env: []string{searched}}},
	// and pause.c
	"pause": {config: v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535", Env: []string{searched}}},
	"nonewprivs": {programs: map[string]string{"usr/local/bin/nnp": "k8s.io/kubernetes/test/images/nonewprivs"},
		setuid: true,
		config: v1.Config{Cmd: []string{"nnp"}, Env: []string{searched}}},
	"nginx": {
		packages: []string{"nginx-light"}, busybox: true,
		fill: func(r *Rootfs) {
			r.file("etc/nginx/nginx.conf", 0o644, []byte(nginxConf))
			r.dir("var/lib/nginx", 0o755)
			r.link("var/log/nginx/access.log", "/dev/stdout")
			r.link("var/log/nginx/error.log", "/dev/stderr")
		},
		config: v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}, Env: []string{searched}, StopSignal: "SIGQUIT"},
	},
	"sample-apiserver": {programs: map[string]string{"sample-apiserver": "k8s.io/sample-apiserver"},
		config: v1.Config{Entrypoint: []string{"/sample-apiserver"}, Env: []string{searched}}},
	"etcd": {programs: map[string]string{"usr/local/bin/etcd": "go.etcd.io/etcd/server/v3"},
		config: v1.Config{Env: []string{searched}}},
}

const nginxConf = `user www-data;
worker_processes 1;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
	include /etc/nginx/mime.types;
	access_log /dev/stdout;
	error_log /dev/stderr;
	server {
		listen 80;
		root /usr/share/nginx/html;
		index index.html;
	}
}
`

// base is the name of an image without registry and tag.
func base(ref string) string {
	name, _, _ := strings.Cut(path.Base(ref), ":")
	return name
}

// buildable reports whether there is a recipe. gcr.io has private images, which only their registry may give out.
func buildable(ref string) bool {
	_, ok := recipes[base(ref)]
	return ok && strings.HasPrefix(ref, "registry.k8s.io/")
}

// buildImage makes the archive of one image if there is none yet, and returns its path.
func (m *Minor) buildImage(ctx context.Context, ref string) (string, error) {
	out := filepath.Join(m.cache, "images", m.release+"-"+strings.NewReplacer("/", "_", ":", "_").Replace(ref)+".tar")
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	if m.made.name != base(ref) { // the same image under another tag comes next
		fs, err := m.rootfs(ctx, recipes[base(ref)], ref)
		if err != nil {
			return "", fmt.Errorf("image %s: %w", ref, err)
		}
		img, err := asImage(fs, recipes[base(ref)].config)
		if err != nil {
			return "", fmt.Errorf("image %s: %w", ref, err)
		}
		m.made.name, m.made.image = base(ref), img
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(out), 0o755), archive(m.made.image, ref, out)); err != nil {
		return "", fmt.Errorf("image %s: %w", ref, err)
	}
	return out, nil
}

func (m *Minor) rootfs(ctx context.Context, r recipe, ref string) (*Rootfs, error) {
	fs := newRootfs()
	if len(r.packages) > 0 {
		if err := fs.packages(r.packages, ""); err != nil {
			return nil, err
		}
	}
	if r.fill != nil {
		r.fill(fs)
	}
	for name, pkg := range r.programs {
		built := filepath.Join(m.cache, "programs", path.Base(name))
		if err := m.goTool(ctx, "build", "-o", built, pkg); err != nil {
			return nil, err
		}
		mode := int64(0o755)
		if r.setuid {
			mode |= 0o6000
		}
		if err := fs.copy(name, built, mode); err != nil {
			return nil, err
		}
	}
	for name, file := range r.files {
		if err := fs.copy(name, filepath.Join(m.source, file), 0o644); err != nil {
			return nil, err
		}
	}
	if base(ref) == "pause" {
		return fs, m.pause(ctx, fs, ref)
	}
	if r.busybox {
		return fs, errors.Join(fs.packages([]string{"busybox-static"}, busyboxFrom), fs.applets())
	}
	return fs, nil
}

// pause compiles the one program of the images that is C, as upstream's Makefile does.
func (m *Minor) pause(ctx context.Context, fs *Rootfs, ref string) error {
	dir, err := os.MkdirTemp("", "conformance-pause")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "pause")
	_, version, _ := strings.Cut(path.Base(ref), ":")
	cmd := exec.CommandContext(ctx, "gcc", "-Os", "-Wall", "-static", "-s", "-DVERSION=v"+version, "-o", program,
		filepath.Join(m.source, "build", "pause", "linux", "pause.c"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("gcc: %w\n%s", err, out)
	}
	return fs.copy("pause", program, 0o755)
}

func asImage(fs *Rootfs, config v1.Config) (v1.Image, error) {
	files, err := fs.layer()
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files)),
			nil
	},
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Architecture, file.OS, file.Config = "amd64", "linux", config
	return mutate.ConfigFile(img, file)
}

// archive writes an image as an OCI archive that carries its reference.
func archive(img v1.Image, ref, out string) error {
	dir, err := os.MkdirTemp("", "conformance-image")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{"io.containerd.image.name": ref})); err != nil {
		return err
	}
	f, err := os.Create(out + ".new")
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), f.Close()); err != nil {
		return err
	}
	return os.Rename(out+".new", out)
}
