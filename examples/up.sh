#!/usr/bin/env bash
# What `make up` does after the build: start the datacenter, load the example's image, run the example, call it.
set -euo pipefail
cd "$(dirname "$0")/.."
marina=bin/marina

# how the person who reads this has to call it
say=$marina
[ "${MARINA_STATE:-/var/lib/marina}" = /var/lib/marina ] || say="MARINA_STATE=$MARINA_STATE $say"
[ -z "${SUDO_USER:-}" ] || say="sudo $say"

echo "== The datacenter"
$marina up
echo
echo "== The example service: 3 instances of examples/hello behind a virtual address"
$marina image load bin/hello.tar --quiet >/dev/null
$marina app update examples/hello/app.json --wait
echo
$marina app show /hello
vip=$($marina app show /hello --address)
echo
echo "== Calling it at its virtual address, http://$vip"
for _ in 1 2 3; do curl -fsS --max-time 5 "http://$vip/"; done
cat <<EOF

The datacenter is yours. Next:

  $say status                       how everything is
  $say app scale /hello 5 --wait    more instances
  $say task log hello --follow      what they write
  $say token create                 a token for clients, at the gateway above
  $say --help                       all verbs
  make down                                stop it (make up brings it back)
EOF
