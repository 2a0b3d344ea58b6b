// Package client finds a datacenter and speaks to it over HTTP.
//
// Whom to speak to is found in this order: the address that was named (--url, MARINA_URL) with its token (--token,
// MARINA_TOKEN); for root on the machine itself the datacenter's admin socket, which hands out a token to uid 0 and to
// nobody else; what `marina login` saved. A named address that is the saved one takes token and CA from there.
//
// A token leaves this machine by https only. Logins are saved in the user's own configuration directory and nowhere
// else: whoever could write them would choose which datacenter and which CA later commands trust.
//
// Answers other than good ones are exit.Errors, with what the API said and the code that belongs to its status. Every
// body is read with a bound.
package client
