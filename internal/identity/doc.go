// Package identity keeps the datacenter's users, service accounts and tokens, and authenticates requests by tokens.
// Its child ca issues the certificates that authenticate machines. The API is that of DC/OS's IAM, with an addition
// for tokens.
//
// # State
//
// Users, tokens and keys are rows of the store, each small and changed alone. Private keys are sealed under the
// [RootKey], a file of 32 bytes that every master has a copy of and the store never sees: a stolen database cannot
// sign. Passwords are argon2id hashes. Tokens themselves are not stored, only a row for each.
//
// A [Directory] has all rows but the keys in memory, as of one revision, and follows the store. Only [Directory.Run]'s
// goroutine changes that view. All others write to the store and wait until the view has the write.
//
// # Valid tokens
//
// A token is a JWT signed by RS256 with the datacenter's one signing key, whatever the token's header says. All of
// these must hold:
//
//   - its signature, kid, typ, iss (the datacenter's id) and aud match, its time has come and not passed, give or
//     take a minute;
//   - uid, jti, iat and exp are there and not empty;
//   - its row exists, and its user's row does, with the epoch that the token was issued under.
//
// So deleting the token's row revokes it, and deleting the user or changing the user's epoch revokes all of that
// user's in one write. A deleted token never comes back: its id is random and its row written before it is signed. A
// master whose view lacks a token asks the store once, so that a token is good everywhere as soon as it is issued.
//
// A [Principal] lives as long as its token is good. Handlers of streams end them on [Principal.Done]. A revocation is
// durable when it is acknowledged, is in force on the master that acknowledged it from then on, and on the others as
// soon as the watch delivers it, far within 2 seconds while the store can be reached.
//
// # How it fails
//
// Without the store nothing can be issued or revoked (errdefs.ErrUnavailable), and logins fail; tokens in a master's
// view stay good until they expire. That is a choice: the people who repair the store need their tokens. A root key
// that is not the one that sealed the rows stops a master at its start with errdefs.ErrFailedPrecondition. A row that
// does not decode is logged, left alone, and treated as absent.
//
// Guessing passwords is limited per account and per source address, a login of an unknown user costs what any does,
// and at most two hashes are computed at a time. Guessing for an account from many sources also keeps its owner from
// logging in with a password; tokens and the socket go on working.
//
// # Authorization
//
// That is package access, which this room's own API asks too.
//
// # The first token
//
// There is no first password. [Directory.ServeSocket] gives a token for the user root to a process of uid 0 on the
// master's own machine, where it could read the root key anyway.
package identity
