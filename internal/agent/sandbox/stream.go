package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/kernel"
)

// droppedAttr is the attribute of the current file that counts the bytes of rotated files that are gone.
const droppedAttr = "user.marina.dropped"

func dropped(f *os.File) int64 {
	var b [8]byte
	if n, err := unix.Fgetxattr(int(f.Fd()), droppedAttr, b[:]); err != nil || n != len(b) {
		return 0
	}
	return int64(min(binary.BigEndian.Uint64(b[:]), 1<<60)) // the file is the task's, and so is this
}

func setDropped(f *os.File, n int64) error {
	return unix.Fsetxattr(int(f.Fd()), droppedAttr, binary.BigEndian.AppendUint64(nil, uint64(n)), 0)
}

// openRegular opens a file a task may have replaced: it must be a regular one of the sandbox, and no opening blocks.
func openRegular(root *os.Root, name string, flag int) (*os.File, int64, error) {
	f, err := OpenInside(root, name, flag)
	if err != nil {
		return nil, 0, err
	}
	i, err := f.Stat()
	if err == nil && !i.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file: %w", name, errdefs.ErrPermissionDenied)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, i.Size(), nil
}

func rotated(name string, i int) string { return fmt.Sprintf("%s.%d", name, i) }

// Read fills buf with the bytes of a stream at offset, or at the oldest that are kept if those are gone. It answers
// where what it read begins, and where the stream ends now; a read at the end is of no bytes.
func (d *Dir) Read(task kernel.TaskID, name string, offset int64, buf []byte,
	keep int) (n int, at, end int64, err error) {
	defer d.moving.RLock(string(task))()
	root, err := d.Open(task)
	if err != nil {
		return 0, 0, 0, err
	}
	defer root.Close()
	cur, size, err := openRegular(root, name, os.O_RDONLY)
	if err != nil {
		return 0, 0, 0, err
	}
	defer cur.Close()
	begin := dropped(cur)
	parts := []io.ReaderAt{cur}
	sizes := []int64{size}
	for i := 1; i <= keep; i++ {
		f, size, err := openRegular(root, rotated(name, i), os.O_RDONLY)
		if err != nil {
			continue
		}
		defer f.Close()
		parts, sizes = append(parts, f), append(sizes, size)
	}
	at = max(offset, begin)
	end = begin
	for i := len(parts) - 1; i >= 0; i-- {
		if skip := at - end; n == 0 && err == nil && skip < sizes[i] && skip >= 0 {
			n, err = parts[i].ReadAt(buf[:min(int64(len(buf)), sizes[i]-skip)], skip)
			if errors.Is(err, io.EOF) {
				err = nil
			}
		}
		end += sizes[i]
	}
	return n, min(at, end), end, err
}

// Rotate moves the head of a stream that grew past limit into a file of its own and keeps at most keep of those. No
// byte is lost where the filesystem can take blocks out of the front of a file (ext4, XFS); elsewhere what is written
// during one truncation is. Of a stream that grew by more than is kept the oldest is dropped and never copied: a task
// can make a file of terabytes out of nothing.
func (d *Dir) Rotate(task kernel.TaskID, name string, limit int64, keep int) error {
	root, err := d.Open(task)
	if err != nil {
		return err
	}
	defer root.Close()
	cur, size, err := openRegular(root, name, os.O_RDWR)
	if err != nil {
		return err
	}
	defer cur.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(cur.Fd()), &st); err != nil {
		return err
	}
	head := (size - 1) / st.Bsize * st.Bsize // whole blocks, and not all of it: that is what can be taken out
	if size <= limit || head <= 0 {
		return nil
	}
	most := max(st.Bsize, int64(keep+1)*limit/st.Bsize*st.Bsize)
	if head > most {
		if left, err := d.cut(task, root, cur, name, head-most, keep); err != nil || !left {
			return err
		}
		head = most
	}
	if err := d.discard(task, name+".new"); err != nil {
		return err
	}
	fresh, err := copyHead(root, cur, name+".new", head)
	if err != nil {
		return err
	}
	defer fresh.Close()

	defer d.moving.Lock(string(task))()
	if err := d.shift(task, root, cur, name, keep); err != nil {
		return err
	}
	if err := root.Rename(name+".new", rotated(name, 1)); err != nil {
		return err
	}
	err = unix.Fallocate(int(cur.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, head)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		if _, err = io.Copy(fresh, io.NewSectionReader(cur, head, most)); err == nil {
			err = cur.Truncate(0)
		}
	}
	return err
}

// cut drops the first n bytes of a stream, and with them all that it was rotated into, which is older. Where blocks
// cannot be taken out of the front of a file, all of it is dropped, and nothing left.
func (d *Dir) cut(task kernel.TaskID, root *os.Root, cur *os.File, name string, n int64, keep int) (left bool, err error) {
	defer d.moving.Lock(string(task))()
	gone := dropped(cur)
	for i := keep; i >= 1; i-- {
		if st, err := root.Lstat(rotated(name, i)); err == nil {
			gone += st.Size()
		}
		if err := d.discard(task, rotated(name, i)); err != nil {
			return false, err
		}
	}
	left = true
	err = unix.Fallocate(int(cur.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, n)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		i, staterr := cur.Stat()
		if staterr != nil {
			return false, staterr
		}
		left, n, err = false, i.Size(), cur.Truncate(0)
	}
	if err != nil {
		return false, err
	}
	if err := setDropped(cur, gone+n); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return false, err
	}
	return left, nil
}

func copyHead(root *os.Root, cur *os.File, name string, head int64) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, io.NewSectionReader(cur, 0, head)); err != nil {
		f.Close()
		_ = root.Remove(name) // a full disk is not the fuller for it
		return nil, err
	}
	return f, nil
}

// shift makes room for a new first rotated file.
func (d *Dir) shift(task kernel.TaskID, root *os.Root, cur *os.File, name string, keep int) error {
	if i, err := root.Lstat(rotated(name, keep)); err == nil {
		if err := setDropped(cur, dropped(cur)+i.Size()); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
		if err := d.discard(task, rotated(name, keep)); err != nil {
			return err
		}
	}
	for i := keep - 1; i >= 1; i-- {
		if err := root.Rename(rotated(name, i), rotated(name, i+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
