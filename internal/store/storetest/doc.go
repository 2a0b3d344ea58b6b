// Package storetest is the suite that every implementation of store.Store passes: [Run] is called by the tests of both.
//
// No check depends on how long anything takes. limit bounds checks that would otherwise hang; leases in the stores
// under test are longer, so that nothing within it waited for one to expire.
package storetest
