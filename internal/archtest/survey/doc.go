// Command survey prints where the house stands: the measures of every package, how calls run between the files of
// each, which room imports which, and the totals that CONTRIBUTING.md aims at. `make house` runs it; it changes
// nothing and fails for nothing, the law is in the tests of archtest.
//
// Lines of code hold more than blanks and comments. Test lines are those of _test.go files; a room's suites and
// sim, which are tests by their purpose, stand beside the ratio of the whole. How calls are counted and ordered
// says archtest.Flow; that needs types, and so is told only of packages of the main module.
package main
