package network

// For tests in package network_test.
var DropNamespace = dropNamespace

// MakeNamespace makes one of the machine's own.
func MakeNamespace(path string) error { return makeNamespace(path, nil) }

// Repair is one round of Run's.
func (n *Network) Repair() { n.repair() }
