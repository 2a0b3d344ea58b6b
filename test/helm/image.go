package helm

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// podinfo is the module of chart and program.
const podinfo = "github.com/stefanprodan/podinfo"

// moduleDir is the directory of podinfo's module.
func moduleDir() (string, error) {
	// nothing is imported of it
	if out, err := exec.Command("go", "mod", "download", podinfo).CombinedOutput(); err != nil {
		return "", fmt.Errorf("download of %s: %w\n%s", podinfo, err, out)
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", podinfo).Output()
	if err != nil {
		return "", fmt.Errorf("directory of %s: %w", podinfo, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// buildImage writes an archive with podinfo's two programs, each where its Dockerfile has it, under the name reference.
func buildImage(dir, reference, archive string) error {
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: runtime.GOARCH, OS: "linux",
		RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{User: "1000:1000", WorkingDir: "/home/app", Cmd: []string{"./podinfo"},
			Env: []string{"PATH=/usr/local/bin"}}})
	if err != nil {
		return err
	}
	for _, p := range []struct{ command, path string }{{"podinfo", "home/app/podinfo"},
		{"podcli", "usr/local/bin/podcli"}} {
		file := filepath.Join(dir, p.command)
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, podinfo+"/cmd/"+p.command)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", p.command, err, out)
		}
		layer, err := layerOf(file, p.path)
		if err != nil {
			return err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return err
		}
	}
	tag, err := name.NewTag(reference)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(archive, tag, img)
}

// layerOf is one program at its path.
func layerOf(file, path string) (v1.Layer, error) {
	program, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(program)),
		Typeflag: tar.TypeReg}); err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}
