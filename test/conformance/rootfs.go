package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// Rootfs is the files of an image, in memory. Names are without a leading slash. /bin, /sbin and /lib are links into
// /usr, as in any Debian, and are followed when something is put.
type Rootfs struct{ entries map[string]entry }

type entry struct {
	header  tar.Header
	content []byte
}

// merged are the directories that are links into usr/.
var merged = []string{"bin", "sbin", "lib", "lib64"}

// notNeeded are the parts of Debian's packages that no test reads.
var notNeeded = []string{"usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/",
	"usr/share/lintian/", "usr/share/bash-completion/"}

const users = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
const groups = "root:x:0:\nwww-data:x:33:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\nnogroup:x:65534:\n"

func newRootfs() *Rootfs {
	r := &Rootfs{entries: map[string]entry{}}
	for _, dir := range []string{"etc", "usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "var", "run", "proc", "sys",
		"dev", "home"} {
		r.dir(dir, 0o755)
	}
	for _, link := range merged {
		r.entries[link] = entry{header: tar.Header{Typeflag: tar.TypeSymlink, Name: link, Linkname: "usr/" +
			link, Mode: 0o777}}
	}
	r.dir("root", 0o700)
	r.dir("tmp", 0o1777)
	r.file("etc/passwd", 0o644, []byte(users))
	r.file("etc/group", 0o644, []byte(groups))
	return r
}

// clean is the name under which a file is kept.
func clean(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	first, _, _ := strings.Cut(name, "/")
	if slices.Contains(merged, first) {
		return "usr/" + name
	}
	return name
}

func (r *Rootfs) put(h tar.Header, content []byte) { r.entries[h.Name] = entry{h, content} }

func (r *Rootfs) dir(name string, mode int64) {
	r.put(tar.Header{Typeflag: tar.TypeDir, Name: clean(name), Mode: mode}, nil)
}

func (r *Rootfs) file(name string, mode int64, content []byte) {
	r.put(tar.Header{Typeflag: tar.TypeReg, Name: clean(name), Mode: mode, Size: int64(len(content))}, content)
}

// link makes a symbolic link unless something of that name is there.
func (r *Rootfs) link(name, target string) {
	if _, there := r.entries[clean(name)]; !there {
		r.put(tar.Header{Typeflag: tar.TypeSymlink, Name: clean(name), Linkname: target, Mode: 0o777}, nil)
	}
}

// copy puts a file of the machine.
func (r *Rootfs) copy(name, from string, mode int64) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	r.file(name, mode, b)
	return nil
}

// keyring is the keys that Debian's releases are signed with.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// packages puts Debian packages and all they depend on, as apt finds them; their maintainers' scripts are not run. They
// are of the machine's release, or of the one that is named.
func (r *Rootfs) packages(names []string, release string) error {
	dir, err := os.MkdirTemp("", "conformance-deb")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	none := filepath.Join(dir, "none") // nothing is installed there
	if err := errors.Join(os.WriteFile(none, nil, 0o644), os.Mkdir(filepath.Join(dir, "partial"), 0o700)); err != nil {
		return err
	}
	options := []string{"-qq", "-y", "--download-only", "--no-install-recommends", "-o", "Debug::NoLocking=1",
		"-o", "Dir::State::status=" + none, "-o", "Dir::State::extended_states=" + none, "-o",
		"Dir::Cache::archives=" + dir + "/",
		"-o", "APT::Sandbox::User=root"}
	if release != "" {
		source := filepath.Join(dir, "source.list")
		line := fmt.Sprintf("deb [signed-by=%s] http://deb.debian.org/debian %s main\n", keyring, release)
		if err := errors.Join(os.WriteFile(source, []byte(line), 0o644), os.MkdirAll(filepath.Join(dir, "lists", "partial"),
			0o700)); err != nil {
			return err
		}
		options = append(options, "-o", "Dir::Etc::sourcelist="+source, "-o", "Dir::Etc::sourceparts="+none, "-o",
			"Dir::State::lists="+filepath.Join(dir, "lists"),
			"-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=")
		if out, err := exec.Command("apt-get", append(slices.Clone(options), "update")...).CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get update of %s: %w\n%s", release, err, out)
		}
	}
	if out, err := exec.Command("apt-get", append(append(options, "install"), names...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get of %s: %w (is the list of packages there? apt-get update)\n%s",
			strings.Join(names, " "), err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if err := r.unpack(deb); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(deb), err)
		}
	}
	return nil
}

func (r *Rootfs) unpack(deb string) error {
	files, err := exec.Command("dpkg-deb", "--fsys-tarfile", deb).Output()
	if err != nil {
		return err
	}
	for in := tar.NewReader(bytes.NewReader(files)); ; {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := clean(h.Name)
		if name == "" || slices.ContainsFunc(notNeeded, func(p string) bool { return strings.HasPrefix(name+"/", p) }) {
			continue
		}
		if old, there := r.entries[strings.TrimPrefix(path.Clean("/"+h.Name), "/")]; there && h.Typeflag == tar.TypeDir &&
			old.header.Typeflag == tar.TypeSymlink {
			continue
		}
		content, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		keep := tar.Header{Typeflag: h.Typeflag, Name: name, Linkname: h.Linkname, Mode: h.Mode, Size: h.Size,
			Uid: h.Uid, Gid: h.Gid}
		if h.Typeflag == tar.TypeLink {
			keep.Linkname = clean(h.Linkname)
		}
		r.put(keep, content)
	}
}

// applets puts links for all that busybox can do, where no other program has the name.
func (r *Rootfs) applets() error {
	const box = "usr/bin/busybox"
	tmp, err := os.CreateTemp("", "busybox")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(r.entries[box].content)
	if err := errors.Join(err, tmp.Chmod(0o700), tmp.Close()); err != nil {
		return err
	}
	out, err := exec.Command(tmp.Name(), "--list-full").Output()
	if err != nil {
		return fmt.Errorf("busybox: %w", err)
	}
	for _, name := range strings.Fields(string(out)) {
		// Upstream's busybox has them all in /bin; Debian's list has most elsewhere.
		r.link("usr/bin/"+path.Base(name), "/"+box)
		r.link(name, "/"+box)
	}
	return nil
}

// layer is the files as a tar archive; the same files give the same archive. Links to files come after all files.
func (r *Rootfs) layer() ([]byte, error) {
	names := make([]string, 0, len(r.entries))
	for name := range r.entries {
		names = append(names, name)
	}
	late := func(name string) bool { return r.entries[name].header.Typeflag == tar.TypeLink }
	sort.Slice(names, func(i, j int) bool {
		if late(names[i]) != late(names[j]) {
			return late(names[j])
		}
		return names[i] < names[j]
	})
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range names {
		e := r.entries[name]
		if err := w.WriteHeader(&e.header); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	err := w.Close()
	return out.Bytes(), err
}
