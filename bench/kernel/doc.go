// Command kernel prints the numbers of the kernel's pure parts, each beside what people would otherwise pick or what
// could be had at best:
//
//	placement  decisions a second, beside SwarmKit's scheduler in the same process
//	packing    machines used for the shapes of a public trace, beside best fit and the lower bound
//	sharing    how far weighted shares are from exact progressive filling
//
// SwarmKit decides in one goroutine over a store in memory, and so does what is measured beside it; what SwarmKit takes
// to read its nodes is measured alone and taken off. Nothing fails because of a number. The module is its own so that
// SwarmKit is no dependency of Marina's.
package main
