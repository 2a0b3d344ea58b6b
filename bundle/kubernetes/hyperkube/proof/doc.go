// Package proof runs the built program of every minor the way a cluster's task does and looks at it from outside. It
// imports nothing of Kubernetes, so that it is compiled in a second:
//
//	cd bundle/kubernetes/hyperkube && GOWORK=off go test -count=1 ./proof
//
// Minors that are not built are skipped; with MARINA_REQUIRE_REAL=1 at least one must be. MARINA_MEASURE=1 adds a
// minute or two for each and prints what a control plane costs.
package proof
