// Package access is the seam at which every API room asks whether somebody may do something: a [Principal], an
// [Action], a [Resource]. A room asks with what a request is really about, also with ids that stand in a body, which
// its path does not show; it asks for each element of a list before it answers with it.
//
// # Who puts what where
//
// The gateway puts the principal into the request's context once its token was found good. Rooms call [Check] with the
// Authorizer that they were given; they never look at users or tokens. A nil Authorizer allows everything: rooms' own
// tests run without one. The daemon gives one to every room, and a test there asks every route with one that denies
// everything.
//
// # What is allowed today
//
// [Administrators]: everybody with a good token may do everything, and nobody else anything. Teams and roles will
// replace that one value; the places that ask stay.
//
// # Words
//
// Resources are named as DC/OS names them in its access control lists, a family and a path
// ("dcos:service:marathon:marathon: services:/prod/web"), so that its clients and its documents fit; what DC/OS had no
// name for begins with "marina:". Paths are those of the group tree. A denial is an errdefs.ErrPermissionDenied whose
// text names the right, the path and who may give it.
package access
