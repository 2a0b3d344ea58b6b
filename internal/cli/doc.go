// Package cli is the marina command: verbs over the datacenter's HTTP API, for people and scripts.
//
// Every verb that shows something has --json, which prints the API's own answer. Every verb that changes something says
// what it did, and --wait follows it to its end. Errors are one line that names the thing, and one that says what to do
// next. Exit codes mean something: see the Exit constants.
//
// The verbs speak HTTP only and know the wire types of the rooms behind it. What has to run inside a datacenter's processes
// (up, down, daemon, agent) comes in as Programs from main, so that this package depends on none of it.
//
// Whom to talk to is found in this order: --url and --token, MARINA_URL and MARINA_TOKEN, what `marina login` saved, and,
// for root on the machine itself, the datacenter's admin socket, which hands out a token to uid 0 and to nobody else.
package cli
