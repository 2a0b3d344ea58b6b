// Package image makes images present in containerd: from the datacenter's store, else from the registry that the
// reference names. Of a reference that neither has the error says both answers and what to do.
package image
