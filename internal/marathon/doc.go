// Package marathon is Marathon's definitions: an app as it goes over the wire and into the store, how a request's
// JSON becomes one, what may be in it, what instances are made from, and the other types of the API and of its
// events.
//
//	JSON ─> Parse ─> Read (conform, fold) ─> Validate, AssignPorts ─> App ─> Spec ─> kernel
//
// Whoever wants an app without running it uses this room and no other: services runs apps, a catalogue checks them, a
// scheduler of jobs or a program on somebody's machine reads and writes the same types. It is pure: no clock, no
// disk, no network, no store; what depends on other apps (a role, a free port) is handed in.
//
// # Contracts
//
//   - An [App] that was accepted is never changed: another definition is another App with another Version. Clone
//     copies as deep as ports are assigned.
//   - [Parse] bounds what it reads (MaxBody, MaxDepth), refuses a key that is given twice, and keeps numbers exact.
//   - [Read] fills in Marathon's defaults, brings the deprecated spellings into the one form that is kept and shown,
//     and refuses by name what this version does not build. What it returns comes back the same when it is read
//     again.
//   - [Spec] depends on nothing but the app: the same config version gives the same spec, so that scaling touches no
//     instance.
//   - Refusals are Marathon's: [InvalidError] with a path and texts for each thing that is wrong, in the order of
//     paths and at most 100 of them; [SyntaxError] for what is no JSON. Which status they get is the API's matter.
//   - Ids are absolute paths of groups and a name, see [AppID]; times are text of one form that sorts, see
//     [Timestamp], and name versions.
package marathon
