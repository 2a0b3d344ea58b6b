// Package identity knows who may use the datacenter: its users and service accounts, and the tokens by which requests say
// whose they are. Its child ca makes the certificates by which machines do. The API is that of DC/OS's IAM, with an
// addition for tokens.
//
// # What is kept, and where
//
// Users, tokens and keys are rows of the store, each small and changed alone. Private keys are sealed under the [RootKey],
// a file of 32 bytes that every master has a copy of and the store never sees: who steals the database cannot sign.
// Passwords are argon2id hashes. A token itself is kept nowhere; its row says that it exists.
//
// A [Directory] holds all rows but the keys in memory, as of one revision, and follows the store. Only [Directory.Run]'s
// goroutine changes that view. Everybody else writes to the store and waits until the view has seen the write.
//
// # What makes a token good
//
// A token is a JWT signed by RS256 with the datacenter's one signing key, and nothing that a token's header says can
// change that. All of these must hold:
//
//   - its signature, kid, typ, iss (the datacenter's id) and aud fit, its time has come and not passed, give or take a minute;
//   - uid, jti, iat and exp are there and not empty;
//   - its row is there, and its user's row is, with the epoch that the token was issued under.
//
// So deleting the token's row revokes it, and deleting the user or changing the user's epoch revokes all of that user's in
// one write. A deleted token never comes back: its id is random and its row written before it is signed. A master that
// has not heard of a token asks the store once, so that a token is good everywhere as soon as it is issued.
//
// A [Principal] lives as long as its token is good. Whoever serves a stream ends it on [Principal.Done]. A revocation
// is durable when it is acknowledged, holds on the master that was asked at that moment, and on the others as soon as the
// watch brings it, far within 2 seconds while the store can be reached.
//
// # How it fails
//
// Without the store nothing can be issued or revoked (errdefs.ErrUnavailable), and logins fail; tokens that a master knows
// stay good until they expire. That is a choice: the people who repair the store need their tokens. A root key that is
// not the one that sealed the rows stops a master at its start with errdefs.ErrFailedPrecondition. A row that does not
// decode is reported, left alone, and as good as absent.
//
// Guessing passwords is limited per account and per source address, a login of an unknown user costs what any does, and at
// most two hashes are computed at a time. Whoever keeps guessing for an account from many sources also keeps
// its owner from logging in with a password; tokens and the socket go on working.
//
// # Who may do what
//
// That is not decided here: package access is asked, by this room's own API too.
//
// # The first token
//
// There is no first password. [Directory.ServeSocket] gives a token for the user root to a process of uid 0 on the master's
// own machine, where it could read the root key anyway.
package identity
