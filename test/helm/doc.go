// Package helm holds hosted clusters to what people do first with theirs: install what others wrote, by Helm. The chart
// is podinfo's, taken as it is from the Go module that also holds the program, and Helm is a library here. The image is
// built from the same module under the name the chart asks for and loaded into the cluster: there is no registry.
//
// It is a module of its own, so that Helm is nobody's dependency.
package helm
