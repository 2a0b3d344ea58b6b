// Package kube is the command's side of the API of hosted Kubernetes clusters: paths, requests, and the completion of
// names, for the verbs over clusters and for those that send images to them.
package kube
