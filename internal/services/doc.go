// Package services runs apps: it keeps, for each, as many healthy instances of the right version as its definition
// says, leads them from one version to the next, and serves Marathon's API version 2 for it.
//
// # How it fits together
//
//	API request ─┐                                                     ┌─> store rows (fenced)
//	kernel watch ─┼─> scheduler.Loop ─> State ─> Decide ─> Decision ───┤
//	timer ────────┘    (the one owner)           (pure)                 └─> kernel: launch, withdraw, stop, forget
//
// core.State is what is known, core.Decide what is to be done about it, and nothing there reads a clock, draws a
// number or blocks: time and instance ids come in. What can be asked of Services is in request.go, what it tells in
// read.go; api serves both over HTTP. The owner goroutine of a scheduler.Loop is the only writer. A request's change
// is committed under the leadership's fence before it is answered, and only then taken into the state; readers get
// values of their own, made under the state's lock.
//
// Whoever drives the pure part (Run does, and a simulator may) keeps this order: Observe what the kernel says;
// Decide; make the decision's transitions durable and Advance by each; hand the rest to the kernel, and report with
// LaunchFailed and ForgetRefused what it refused; decide again until the decision is empty, then at its Wake or at
// the next change. A deployment is made by NewDeployment and taken in by Begin. A new leader is a NewState with
// SetApp for each app, Deployments, and the kernel's instances observed.
//
// # What is stored
//
//	apps/<id>                   the app as it should be: intent as a count, never a list of instances
//	versions/<id>/<timestamp>   its versions, newest MaxVersions and those that running deployments name
//	deployments/<id>            apps with the versions they come from and go to, the steps, the current step
//
// Instances are the kernel's. A new leader reads the rows, takes the kernel's instances, and decides anew; since
// every decision compares what is with what should be, it continues a deployment at any point of any step. Launch
// pauses, the last failure of an app and the brakes' memories begin empty. Until every agent has reported, nothing is
// killed, given up or called done.
//
// # Guarantees
//
//   - An app's instances never exceed floor(n*(1+maximumOverCapacity)) by what is done here, except that one more may
//     run while versions change and the strategy would otherwise allow no move at all. Instances given up as
//     unreachable do not count.
//   - While versions change, nothing done here brings the healthy instances below ceil(n*minimumHealthCapacity).
//   - Two deployments never share an app: the second is refused with 409 and the first one's id, or cancels it with
//     force.
//   - A version is later than every version given out before, also across leaders; a rollback gets a new version too,
//     but keeps the config version of what it goes back to, so that instances of it that still run are kept.
//   - A change of instances alone never touches running ones: they carry the version of the last config change.
//   - Service ports are from a range of their own, unique where they were assigned, and kept by an app.
//
// # Brakes
//
// In any minute at most a fifth of the instances that all apps should have, and never less than three, is killed
// because checks fail; the rest waits its turn, out of the traffic all the same. While more than half of them are on
// machines that do not answer, giving them up is slowed down alike. See core.Policy. Deployments and requests to kill
// are not slowed down.
//
// # How it fails
//
// A commit whose outcome is unknown, or an error of the kernel, ends Run; the next leadership begins from what is
// durable. A spec that the kernel refuses counts as a failed launch and is tried again with growing pauses.
//
// One object's trouble is set aside and no other notices, see core/aside.go: an app whose row cannot be read, be it
// torn or of a kind that only a later version knows, keeps its instances and its name; a deployment that cannot be
// read goes no further, and ends nothing; an app or a deployment about which something panicked is left as it is.
// Each is an alarm that says what to do, in health and in `marina status`, and each has a way out. Fields of a row
// that this version does not know are no trouble: they are ignored.
//
// # Differences from Marathon
//
// Deployments and queue items tell in a sentence why they wait ("reason", "refusal"). After a cancelled change of
// version, the next change of the app also replaces instances of other versions. All health checks run on agents, and
// unhealthy instances of every kind of check leave VIPs. A key given twice in one JSON object is refused. Fields that
// Marathon knows and that are not built are refused with their name, see unbuilt in read.go; groups can be read and
// not written, and one without apps does not exist; there are no pods. What goes first when scaling down does not
// look at the balance of GROUP_BY.
package services
