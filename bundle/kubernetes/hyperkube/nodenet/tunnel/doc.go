// Package tunnel is a node's door for its cluster's own control plane, which lives outside of the pods' network: the
// steward connects through it to pods and Services (HTTP CONNECT), and has directories for local volumes made and
// removed.
//
// It speaks TLS with the node's certificate, and only to who shows one of the cluster's authority that says Client.
// Targets are addresses and ports within the cluster's ranges, never names and never the node's own network: who holds
// the certificate gets no further than pods do. Certificates are read again when their files change; connections that
// stand go on.
package tunnel
