// Package audit keeps what people and programs changed in the datacenter: who, what, from where, and with which
// outcome. It is a log that is only appended to.
//
// # What is recorded
//
// The gateway records every request that could change something (any method but GET, HEAD, OPTIONS and TRACE), every
// request that was refused for want of a right (401, 403), and every session inside a task, which gets one record at
// its start and one at its end. The admin socket records the tokens it gives. Requests that pass through to an app
// under /service are the app's own and are not recorded. A record holds no body, no query and no token: those can hold
// secrets. A room that knows more than the path says (whose login it was, which deployment began) adds it with [Note].
//
// # What is kept, and for how long
//
// Records are lines of JSON in files of one directory, audit-<number>.jsonl, where the number is that of the file's
// first record. A file that has reached Config.FileBytes is closed and the next one begun; beyond Config.Files the
// oldest is removed. A line is written before the client has its answer and reaches the disk within a second
// (Config.SyncEvery): a machine that loses power may lose the records of its last second, a process that is killed
// loses none. A file whose last line is torn is gone on with on a line of its own.
//
// # How it fails
//
// A record that cannot be written (the disk is full) does not keep anybody from working: it is counted, logged, and
// [Log.Alarms] tells it until a record could be written again. Records already written are never changed.
//
// # Who owns what
//
// A [Log] has one mutex around its open file; readers open the files themselves and see whole lines only. Numbers of
// records increase by one in each directory and are never used again, so that a gap shows what is missing.
package audit
