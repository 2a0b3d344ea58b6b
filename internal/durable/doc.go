// Package durable writes files whole and locks them. Whoever reads such a file, at any moment and after any crash,
// finds the content of before or the one of after, never a part of either.
//
// There are two promises, and the caller says which one it needs:
//
//	WriteFile, File.Commit      When it returns nil, the new content stays, also if power is lost in the next instant: the
//	                            file is synced, renamed, and its directory synced. For what is promised to others or cannot be
//	                            made again: checkpoints, keys, names, what a setting of the machine was.
//	ReplaceFile, File.Replace   The file is synced and renamed. After a loss of power the old content may be back, never a torn
//	                            one. For what is made again at the next start, and for memory filesystems. Half the cost.
//
// File.CommitNew is Commit for a name that must not be taken yet: of several processes one wins, and the others get
// fs.ErrExist.
//
// A file is written under a temporary name in the directory of its own, ".new-" and chance, so that writers never meet
// and no pattern for the final names matches it. A crash leaves such a file behind; Sweep removes them, and is for the
// owner of a directory alone. Errors leave nothing behind, and the old file as it was. Modes are those asked for,
// whatever the umask.
//
// Lock takes a file for as long as the process lives: the kernel frees it when the process dies, so that no lock is
// ever stale. What the file says (WritePID) is for people and for Holder; the lock itself is the truth.
package durable
