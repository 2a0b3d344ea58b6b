// Package event names all that can happen to a master's state: messages of agents, requests of schedulers and
// operators, and time passing.
//
// Whoever drives the state makes events, cuts what gathered into [Steps], and numbers requests, so that the reply to
// each is found again ([Numbered]).
package event
