// Package row names the rows of a master: what is durable, and the order in which it is written. It says what a row
// holds where that is no other package's type.
//
// Rows lie under "kernel/". They are written in an order of which every beginning can be loaded, so that effects too
// large for one transaction are cut into several.
package row
