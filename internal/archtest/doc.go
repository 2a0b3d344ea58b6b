// Package archtest holds the architecture as a test, so that `ls internal` tells the truth. Three files state the
// law, and the tests say where the house breaks it:
//
//   - table_test.go: which package there is, what it may import, which packages are pure, which library belongs to
//     whom;
//   - limits_test.go: how large packages, types, functions and lines may be;
//   - ratchet.txt: where the house is over those limits today. Those numbers only go down.
//
// # The table
//
// Every package below internal/ has one line, keyed by its path. The line names exactly the packages of internal/
// that its code imports: a missing permit fails, and so does one that nobody uses. Test files may import anything.
//
// A package is of one of these kinds:
//
//   - room: a directory of internal/. Rooms import rooms, never in a circle, and only contracts: not what lies below a
//     room.
//   - wiring: a room that may also import implementations, to put the pieces together. Only daemon and sim are.
//   - implementation: a child that imports its parent, which holds the contract. The parent never imports it, and
//     nobody else does but wiring.
//   - part: a child that its parent imports. It never imports its parent. Its siblings may import it when their
//     lines say so; a package outside the room may when its own line and the part's For both say so.
//   - suite: conformance tests, imported by test files only.
//   - program: a main package, imported by nobody.
//
// Examples. The store's contract and what implements it; daemon names store/etcd, sim names store/memory:
//
//	"store":        room(""),
//	"store/etcd":   implementation("store"),
//	"store/memory": implementation("store"),
//	"sim":          wiring("kernel store store/memory ..."),
//
// A room with an inner wall: the pure core is a part, and the simulator drives it as well:
//
//	"master":      room("kernel master/core store"),
//	"master/core": part("allocator invariant kernel placement store").pure().For("sim"),
//	"sim":         wiring("kernel master/core store store/memory ..."),
//
// A part that another module imports (bundle/kubernetes) says so in `outside`, and that it needs the standard
// library only:
//
//	"kubernetes/wire": part("").onlyStandard(),
//
// A command line with a package for each noun; what they share is a part as well, so that no noun sees another:
//
//	"cli":        room("cli/app cli/client"),
//	"cli/app":    part("cli/client kernel"),
//	"cli/client": part("kernel"),
//
// Pure packages ask no clock, network, disk or chance, start no goroutine, and import only pure packages. In every
// other package the same holds for files called decide.go and step.go, imports of the house aside.
//
// `make house` (survey) prints the measures of every package, how calls run between its files, and how far the house is
// from its aims.
//
// # The ratchet
//
// ratchet.txt has a line for each number over its limit. A number that grows fails; one that is back within its
// limit fails until its line is gone. When numbers have gone down, or a package has moved, bring the file up to
// date with
//
//	go test ./internal/archtest -update
//
// which lowers and removes and follows a type or function that moved, but never raises: to raise a number, edit the
// line and say why in the commit. Conflicts in ratchet.txt: take either side, and -update.
//
// A package over its size names an issue that ends it in limits_test.go, or says in its doc.go why it is larger
// than 2,500 lines.
//
// Changing the table is a design decision: say why in the commit and the package's doc.go, and keep ARCHITECTURE.md
// in step.
package archtest
