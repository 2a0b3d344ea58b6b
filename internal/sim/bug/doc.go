// Package bug names the mistakes that a simulation can make on purpose. A simulator that finds nothing may be blind:
// for each of these the tests know which invariant finds it.
package bug
