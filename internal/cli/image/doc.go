// Package image is `marina image`: images that tasks run from, and their way into the nodes of clusters.
package image
