#!/usr/bin/env bash
# progress.sh NAME GO-BUILD-COMMAND: runs a go build -v of one package, named last, and says how many packages it compiled,
# of at most how many, every 100; what is in Go's build cache is not compiled. Everything else the command says is passed on.
set -euo pipefail
name=$1; shift
packages=$(go list -deps "${@: -1}" | wc -l)
echo "bundle/kubernetes: building $name, $packages packages; the first time takes ${FIRST:-about 10 minutes} on 2 cores"
"$@" 2>&1 | awk -v name="$name" -v of="$packages" '
	/^[^ #]+$/ { if (++n % 100 == 0) { print "bundle/kubernetes: " name ": compiled " n " of at most " of " packages"; fflush() }; next }
	{ print; fflush() }'
