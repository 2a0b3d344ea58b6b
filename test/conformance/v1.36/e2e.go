// Package e2e pins upstream's end-to-end tests of Kubernetes 1.36 and the programs of their images; test/conformance
// builds them.
package e2e

import _ "k8s.io/kubernetes/test/e2e"
