// Package archtest holds the architecture as a test: which room may import which, which outside libraries a room keeps to
// itself, which rooms are pure, and that every package says what it is. Changing the table in archtest_test.go is a design
// decision: say why in the commit, and keep ARCHITECTURE.md in step.
package archtest
