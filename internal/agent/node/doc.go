// Package node tells a Kubernetes node that runs as a task which machine it is: an id of its own, and how large. What
// is granted to it stands in files that are bound into its container and changed when the grant is.
package node
