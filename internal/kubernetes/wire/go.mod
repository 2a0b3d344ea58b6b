// A module of its own, which needs the standard library only: the modules of bundle/kubernetes import it, and Marina's dependencies
// take no part in choosing the versions of what clusters run.
module github.com/marinaos/marina/internal/kubernetes/wire

go 1.26.6
