// Package clitest runs command lines in tests: the real command, against an HTTP handler that stands for a datacenter,
// in a home of its own. Recorded is such a datacenter, small and always the same; it has every API that the command
// asks.
package clitest
