// Package kubeconfig puts ways into clusters into a user's kubeconfig, and takes them out.
//
// A kubeconfig belongs to its user: it holds the ways to other clusters too. It is changed as a document, so that what
// is not ours stays as it is, comments included; under kubectl's own lock; and by rename, so that it is whole at every
// moment. What is no kubeconfig is left alone.
package kubeconfig
