// Package cli is the marina command: verbs over the datacenter's HTTP API, for people and scripts.
//
// Every verb that shows something has --json, which prints the API's own answer. Every verb that changes something says
// what it did, and --wait follows it to its end. Errors are one line that names the thing, and one that says what to do
// next. Exit codes mean something: see package exit.
//
// `ls` of this directory is the nouns: app, audit, cluster, datacenter, deployment, image, machine, quota, task, token.
// Each is a package that knows no other noun. What they stand on lies beside them, each above the one before: exit,
// output, client, command, and over those what several nouns share: marathon, kube, kubeconfig, resources. This package
// puts the nouns together, reads the flags that all verbs have, and prints how a command ended; testdata has all of it
// as people see it.
//
// The verbs speak HTTP only and know the wire types of the rooms behind it. What has to run inside a datacenter's
// processes (up, down, daemon, agent) comes in as Programs from main, so that this package depends on none of it.
package cli
