// Package storetest is the suite that every implementation of store.Store passes: [Run] is called by the tests of both.
//
// No check depends on how long anything takes. limit bounds what would otherwise hang; leases in the stores under test are
// longer than it, so that what happens within it did not wait for one to run out.
package storetest
