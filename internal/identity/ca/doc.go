// Package ca is the datacenter's own certificate authority. It issues the certificates with which masters serve and
// machines authenticate; people and programs use tokens (see package identity).
//
// The CA is one ECDSA P-256 key and a certificate of ten years, created at the first start. The key is in the store,
// sealed under the root key; the certificate is public. It signs end certificates only.
//
// # Roles
//
// A certificate names one [Subject] in its URI: marina://<datacenter>/agent/<id>, or master, or admin. A certificate
// of the same CA alone grants nothing: every listener and every dial requires roles of the other end ([RequirePeer]),
// and [Peer] returns its subject, for instance to check that an agent registers as itself. Only masters' certificates
// can serve, and they are only created together with their keys, never for a request from elsewhere.
//
// # Lives
//
// There are no revocation lists; certificates are short-lived instead: a day for masters, a week for agents (so that
// an agent may be cut off for days), an hour for admins. A [Source] renews at half of the life, when a handshake
// needs the certificate: nothing runs in the background. A renewal over the network proves the identity it renews
// ([Authority.Renew]). An agent that was away for longer has to join again.
//
// An Authority and a Source are safe for concurrent use. Without the root key that sealed it the CA does not open:
// errdefs.ErrFailedPrecondition.
package ca
