// Package sandbox keeps the directory that each task writes into: its files, and its output. Sandboxes stay after the
// task for people to read, until they are old, too many, or in the way.
//
// The output of a task is two streams. A stream is a file that the task appends to and the files it was rotated into
// (stdout, stdout.1, stdout.2: the newest first). Its bytes are counted from the first ever written, so that an offset
// means the same before and after a rotation, and while a stream is rotated nobody reads it.
//
// What is in a sandbox is the task's doing and hostile: links that lead out, pipes in place of files, millions of
// files. Nothing is opened that is not in the sandbox, no opening blocks, and no walk is without bound. Names of tasks
// are those that naming.IsTask accepts; others are never handed in.
package sandbox
