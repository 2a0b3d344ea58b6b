// Package gateway is the one front door of a datacenter, for people and programs: HTTPS for everybody, plain HTTP for this
// machine alone. It decides who may come in, and hands requests to the rooms that answer them and to apps that want to
// be seen. What is behind which path, daemon tells it as a table of [Route]; the rest are the gateway's own routes.
//
// # What every request goes through
//
//   - Its path is made canonical: repeated slashes are merged, without the redirect that would turn a PUT into a GET; escapes
//     stay as they are. A path that two parsers could read differently (dot segments, escaped slashes) is refused with 400.
//   - Headers by which a client could pretend to be a proxy that vouches for somebody are taken out, in all spellings.
//   - It is counted: over Config.MaxRequests at once, or MaxStreams for routes that stream, it is refused with 503.
//   - It is authenticated (package identity). Everything needs a good token but routes that say Open; who has none gets a
//     401, also where there is no route.
//   - Unless it carries an Authorization header, what a page of another origin made a browser send is refused with 403.
//   - Its body has a limit (413) and a pace, its answer a pace: who does not send or read for a while is cut off.
//   - A panic in it is logged with its stack and answered with 500. Other requests go on.
//
// The handler finds the principal by identity.FromContext. When the principal's token ends, by revocation or by its time,
// the request's context ends, and so do reads and writes that wait, also on a connection that has become a websocket.
// When the gateway stops, the same happens to requests on routes that stream; others have some seconds.
//
// # Apps
//
// What is under /service/<name> goes to a task of the app with that name, by a [ServiceResolver]. Apps are not trusted: they
// never get credentials, cannot set the gateway's cookies nor what a browser keeps for the whole origin, and are only connected to
// where a task can be. They share an origin with the gateway, as they did in DC/OS: an app's script can use
// what the user may do in the browser. Give that only to apps that you trust with it.
//
// There is no Strict-Transport-Security header: it would hold for all ports of the host's name, the apps' own included.
//
// # How it fails
//
// An address that is taken ends Run with an error. Errors that the gateway answers itself are JSON, {"message": "..."}, and
// a page for browsers in the case of 401. Without the store, requests with tokens that this master knows go on.
//
// A Gateway is safe for concurrent use. Handlers given to it must be, too; they own nothing of the request after they
// have returned.
package gateway
