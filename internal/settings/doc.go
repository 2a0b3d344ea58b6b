// Package settings holds what a datacenter is started with, on one machine: said by the flags and the environment of
// `marina up`, kept in the state directory by the command line, and read by the daemon and the agent. It is plain data,
// so that the command line and the daemon agree on it without knowing each other.
//
// Only the zero value's meaning and the defaults are stated here. What a value may be is the daemon's to judge, and it
// refuses in words.
package settings
