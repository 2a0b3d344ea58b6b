// Package pki makes what the programs of a hosted cluster know each other by: the cluster's two authorities (its own
// and the front proxy's), the key for service account tokens and the key that encrypts secrets, made once; and the
// certificates of its members, made when an agent asks for them and anew when a third of their time is left.
//
// Everything is kept sealed under the datacenter's root key, for the very row that it stands in (Seal): a row that
// was copied to another cluster's place does not open. Nothing here touches the store or knows who may ask.
package pki
