// Package definition defines hosted clusters: the fields that can be asked for, their defaults and bounds, which may
// change later, and the resources that a cluster takes from the pool. It is pure: the same definition is complete, or
// refused, wherever and whenever it is looked at.
//
// Refusals are errdefs.ErrInvalidArgument and name the field, its value and what is expected.
package definition
