// Package check asks tasks whether they work, and keeps what follows from the answers.
//
// [Repeat] has one check asked again and again; a [Prober] asks once, by HTTP, TCP or a command in the container;
// [Next] is the automaton of a check's health. What an answer says is bounded, and so is how long it may take. Nobody
// is ended here for not being well: schedulers do that.
package check
