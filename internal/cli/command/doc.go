// Package command holds what every noun of the command line is built with: the Env that its verbs get, and the shape
// that they share, so that they are alike in what they accept, say and complete.
//
// A noun is a package with one function, Command(*command.Env) *cobra.Command. It reads and writes through the Env
// alone, and knows no other noun; what nouns share lies beside them (marathon, kube, resources, kubeconfig).
package command
