// Package event is what can happen to a master's state: what agents say, what schedulers and operators ask for, and time
// passing.
//
// Whoever drives the state makes events, cuts what gathered into [Steps], and numbers requests, so that the reply to
// each is found again ([Numbered]).
package event
