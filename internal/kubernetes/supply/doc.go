// Package supply gives nodes of hosted clusters the images that were loaded into their clusters: it has the nodes' own
// containerds import archives (package archive), so that no other cluster sees them.
//
// What a program in a node says is the node's word, and whoever is root there says what they like: it is bounded in
// bytes and time. An archive was uploaded: it may be anything, and reading it may panic; both are the archive's fault,
// and it is removed. Whatever else goes wrong is told, and whoever asked tries again.
//
// A Supplier has a goroutine for each node that is being given images, of which so many work side by side.
package supply
