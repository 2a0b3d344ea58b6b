// Package definition is what somebody wants of a hosted cluster: its fields, their defaults and bounds, what may
// change later, and what it takes of the pool. It is pure: the same definition is complete, or refused, wherever and
// whenever it is looked at.
//
// Refusals are errdefs.ErrInvalidArgument and name the field, its value and what is expected.
package definition
