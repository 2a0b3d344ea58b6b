// Command conformance runs upstream's own conformance tests against clusters of a Marina datacenter and adds the
// results up:
//
//	go run ./test/conformance                                  every test of every minor
//	go run ./test/conformance -minors v1.37 -shards api,dns    some of them
//	go run ./test/conformance -only missing -limit 50m         go on where an earlier run ended
//	go run ./test/conformance -report                          write what is known into docs/conformance.md
//
// What is run. The tests are the package k8s.io/kubernetes/test/e2e of exactly the version that bundle/kubernetes pins,
// compiled unchanged (directories v1.36 and v1.37 hold a module each for that). Which of its tests are the conformance
// tests says conformance.yaml of the same version. shards.txt sorts them by what they need of a cluster:
//
//	api       API server and controllers; a cluster without nodes will do
//	node      kubelet and container runtime
//	network   pods that are reached by pods, by the API server or from outside
//	dns       the cluster's DNS
//	serial    the whole cluster for one test at a time, two nodes
//
// Where. Of every minor one cluster, conf-137 and so on, is made in the datacenter that runs in $MARINA_STATE, or if
// none runs in one that is started for it and taken away at the end. Another cluster is taken with -kubeconfig; -bare
// starts nothing but the minor's control plane, on loopback, which is enough for the shard api.
//
// Images. No registry is asked. What the tests' pods run is built here, of upstream's source and Debian's packages, and
// loaded under the names and tags that the tests use (images.go). A test whose image cannot be had is left out, and so
// is one whose cluster cannot be had; left out is told apart from passed and failed, and says why (leftout.txt).
//
// Results. A test has the result of its last run, with the time, the release and what kind of cluster it was. They are
// kept in docs/conformance/v1.37.json and so on, written anew after every batch of tests; an interrupted run loses one
// batch. The exit status is 1 if a test that was run failed, 2 if tests could not be run.
package main
