// Package gateway is the API gateway of a datacenter, for people and programs: HTTPS for everybody, plain HTTP for
// this machine alone. It authenticates requests and passes them to the rooms that answer them and to apps that are
// published under /service. Daemon supplies a table of [Route]; the gateway adds its own.
//
// # The stages of a request
//
//   - Its path is made canonical: repeated slashes are merged, without the redirect that would turn a PUT into a GET;
//     escapes stay as they are. A path that two parsers could read differently (dot segments, escaped slashes) is
//     refused with 400.
//   - Headers by which a client could pretend to be a proxy that vouches for somebody are removed, in all spellings.
//   - It is counted: over Config.MaxRequests at once, or MaxStreams for routes that stream, it is refused with 503.
//   - It is authenticated (package identity). Everything but Open routes needs a good token; without one the answer
//     is 401, also where there is no route.
//   - Unless it carries an Authorization header, a request that a page of another origin caused is refused with 403.
//   - Its body has a limit (413) and a minimum pace, its answer a minimum pace: a client that does not send or read
//     for a while is cut off.
//   - A panic in it is logged with its stack and answered with 500. Other requests go on.
//
// The handler finds the principal by identity.FromContext. When the principal's token is revoked or expires, the
// request's context ends, and so do blocked reads and writes, also on a connection that has become a websocket. When
// the gateway stops, the same happens to requests on routes that stream; others have some seconds.
//
// # Apps
//
// Requests under /service/<name> go to a task of the app with that name, by a [ServiceResolver]. Apps are not
// trusted: they never get credentials, cannot set the gateway's cookies or a browser's settings for the whole origin,
// and are connected to at addresses of tasks only. They share an origin with the gateway, as they did in DC/OS: an
// app's script can do in the browser what the user may do. Publish only apps that you trust with that.
//
// There is no Strict-Transport-Security header: it would apply to all ports of the host's name, the apps' own included.
//
// # How it fails
//
// An address that is taken ends Run with an error. Errors that the gateway answers itself are JSON, {"message":
// "..."}, and a page for browsers in the case of 401. Without the store, requests with tokens that this master knows
// go on.
//
// A Gateway is safe for concurrent use. Handlers given to it must be, too; they own nothing of the request after they
// have returned.
package gateway
