// Package checkpoint keeps what an agent knows on disk, so that the next one goes on with it after any crash.
//
// A [Dir] is the state directory of one agent, held exclusively: a second agent is refused. A checkpoint is a file in
// it, a JSON value behind a header with its length and checksum. It is whole or not there: what Save returned nil for
// stays, a save that was cut off leaves what was there before. One that was damaged otherwise, cut, lengthened or
// changed in any bit, is told from a good one, set aside under another name for people, and missed by no other. What
// the values mean is their owners' business.
package checkpoint
