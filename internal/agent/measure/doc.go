// Package measure has the agent's instruments: the stages of a start. It may be used by any
// goroutine and fails never; without a registry nothing is measured.
package measure
