// Package cluster is `marina cluster`: hosted Kubernetes clusters, from their definition to kubectl.
//
// A definition is read, changed and written back whole, so that what a verb does not name stays. Whoever waits for
// clusters looks at them until each is what its definition says, or gone; who stops looking stops nothing else. Nothing
// is deleted before every name is known to be a cluster and was confirmed.
package cluster
