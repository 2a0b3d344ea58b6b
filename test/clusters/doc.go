// Package clusters proves hosted clusters: on one real datacenter on this machine stand two clusters of different
// minors side by side, and tests do in them, through client-go, what people do; they kill, fill and break what may
// break, and try to get from one cluster into the other and onto the machine.
//
// The datacenter and its two clusters are opened by the first test that needs them and shared. Tests that break
// something for everybody (the daemon, a control plane) run one after another before those that run together. A test
// that asks for what only one cluster has says so; the others run in both. Without the programs of a minor its cluster
// is of the other minor, and without any the tests are skipped; with MARINA_REQUIRE_REAL set they fail instead.
//
// It is a module of its own because of client-go: run it by `go test ./...` in its directory.
package clusters
