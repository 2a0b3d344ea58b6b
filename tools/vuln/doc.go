// Command vuln asks govulncheck which known vulnerabilities Marina's code reaches, and judges the answer so that
// make test can.
//
// The database is a pinned module, golang.org/x/vulndb (tools/vulndb/go.mod), read from the module cache: the
// answer is the same on every machine, and needs nothing but the Go module proxy. It is as old as the pin, and says
// so when that is long ago.
//
// A vulnerability of a module that the code reaches fails, unless accepted.txt names it with a date and a reason; a
// name there that is not found any more fails as well. One of the standard library is told loudly and does not
// fail: which Go builds Marina is chosen by the machine, not here.
package main
