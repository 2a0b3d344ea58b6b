// Package wire spells the JSON between Marina and the programs that it runs in hosted clusters: a steward's status,
// the decisions that it is told, and the files that a control plane's steward and a node begin with. Both sides import
// it, so that neither spells it a second time.
//
// The two sides are of different ages: a cluster goes on with the programs that it started with while the datacenter
// is upgraded, and the other way round. So fields are only added, what is not there has its zero value, unknown
// fields are ignored, and a field's name and meaning never change. The tests of kubernetes/core read what each side of
// earlier releases said (testdata/wire).
package wire
