package network

// For tests in package network_test.
var (
	MakeNamespace = makeNamespace
	DropNamespace = dropNamespace
)

// Repair is one round of Run's.
func (n *Network) Repair() { n.repair() }
