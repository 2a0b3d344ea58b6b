package durable

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// temporary begins the names of files that are being written.
const temporary = ".new-"

// WriteFile makes b the content of the file name, durably: when it returns nil, b stays whatever happens.
func WriteFile(name string, b []byte, mode fs.FileMode) error {
	f, err := Create(name, mode)
	return fill(f, err, b, (*File).Commit)
}

// ReplaceFile makes b the content of the file name, whole: after a loss of power it may be the old one again, never a
// torn one.
func ReplaceFile(name string, b []byte, mode fs.FileMode) error {
	f, err := Create(name, mode)
	return fill(f, err, b, (*File).Replace)
}

// fill writes b into a file that was just created, and ends it.
func fill(f *File, err error, b []byte, end func(*File) error) error {
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return end(f)
}

// Create begins a file that will be called name; until then nobody sees it. Its directory must exist.
func Create(name string, mode fs.FileMode) (*File, error) {
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	f, err := In(root).Create(filepath.Base(name), mode)
	if err != nil {
		root.Close()
		return nil, err
	}
	f.own = true
	return f, nil
}

// Dir writes files below a directory, and by no name or link outside of it.
type Dir struct {
	root *os.Root
	step func(op string) error // before each operation; tests let it fail, or die there
}

// In is the directory of root, which stays the caller's.
func In(root *os.Root) Dir { return Dir{root: root} }

// WriteFile is the function of that name, for a name below the directory.
func (d Dir) WriteFile(name string, b []byte, mode fs.FileMode) error {
	f, err := d.Create(name, mode)
	return fill(f, err, b, (*File).Commit)
}

// ReplaceFile is the function of that name, for a name below the directory.
func (d Dir) ReplaceFile(name string, b []byte, mode fs.FileMode) error {
	f, err := d.Create(name, mode)
	return fill(f, err, b, (*File).Replace)
}

// Create is the function of that name, for a name below the directory.
func (d Dir) Create(name string, mode fs.FileMode) (*File, error) {
	if err := d.before("create"); err != nil {
		return nil, err
	}
	f := &File{dir: d, name: name, temp: path.Join(path.Dir(name), temporary+rand.Text())}
	var err error
	if f.File, err = d.root.OpenFile(f.temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	if err := f.Chmod(mode.Perm()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (d Dir) before(op string) error {
	if d.step == nil {
		return nil
	}
	return d.step(op)
}

// Sweep removes what writers that were cut off have left in the directory name below d. Only whoever has the directory
// for itself may call it: to others it would take away files that are being written.
func (d Dir) Sweep(name string) error {
	entries, err := fs.ReadDir(d.root.FS(), name)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporary) && e.Type().IsRegular() {
			if err := d.root.Remove(path.Join(name, e.Name())); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// File is a file that is being written. It is used by one goroutine, and ends with Commit, CommitNew or Replace; Close
// after that does nothing, and before that gives the file up. Name is that of the temporary file, for programs that
// fill it.
type File struct {
	*os.File
	dir  Dir
	name string
	temp string
	own  bool // the root is this file's, and closed with it
	done bool // closed
}

// Write appends to the file.
func (f *File) Write(b []byte) (int, error) {
	if err := f.dir.before("write"); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

// Commit gives the file its name, in place of what had it, durably. An error after the rename, of syncing the
// directory, leaves the new file there, but not certain to stay.
func (f *File) Commit() error { return f.end((*os.Root).Rename, true) }

// CommitNew is Commit for a name that nothing has yet: else it is fs.ErrExist, and what is there stays.
func (f *File) CommitNew() error { return f.end((*os.Root).Link, true) }

// Replace gives the file its name, in place of what had it. After a loss of power the old file may be back.
func (f *File) Replace() error { return f.end((*os.Root).Rename, false) }

func (f *File) end(name func(*os.Root, string, string) error, durable bool) error {
	defer f.Close()
	if err := f.dir.before("sync"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.dir.before("name"); err != nil {
		return err
	}
	if err := name(f.dir.root, f.temp, f.name); err != nil {
		return err
	}
	if !durable {
		return nil
	}
	if err := f.dir.before("sync dir"); err != nil {
		return err
	}
	d, err := f.dir.root.Open(path.Dir(f.name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close gives up a file that has no name yet, and is to be deferred.
func (f *File) Close() error {
	if f.done {
		return nil
	}
	f.done = true
	err := f.File.Close()
	if rerr := f.dir.root.Remove(f.temp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) { // after a rename it is gone
		err = errors.Join(err, rerr)
	}
	if f.own {
		f.dir.root.Close()
	}
	return err
}
