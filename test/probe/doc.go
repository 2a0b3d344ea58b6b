// Command probe is the workload that stories judge a datacenter by. What it writes is the truth about its own life: no
// part of Marina stands between the process and the file.
//
// In /reports, a directory of the machine bound into the container, it appends to <task id>.jsonl one line for its
// start (with the kernel's boot id and a random incarnation, so that a second process under the same task id cannot be
// taken for the first), one when it is told to stop, one when it ends by itself, and a heartbeat while it lives.
//
// On the port given as its argument it answers who it is, and does what tasks do when they go wrong, when asked to:
//
//	GET  /                who answers
//	GET  /health          200, or 503 after POST /sick
//	POST /exit?code=3     ends
//	POST /eat?mib=64      takes memory
//	POST /fork?n=100      starts processes that stay
//	POST /write?mib=16    writes to its sandbox, or to the directory that at names
//	POST /print?n=100     prints numbered lines
//	GET  /lookup?name=    asks its name server, ?srv=true for SRV
//	GET  /get?url=        calls somebody from where it is
//
// In the environment, IGNORE_TERM makes it deaf to TERM and EXIT_AT_ONCE ends it with that code as soon as it has
// started.
//
// The argument "sleep" makes it a process that does nothing.
package main
