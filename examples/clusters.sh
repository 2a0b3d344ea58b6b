#!/usr/bin/env bash
# What `make up` does once Kubernetes is built: two clusters side by side, a pod with a Service in each, call both, tell what
# they cost.
set -euo pipefail
cd "$(dirname "$0")/.."
marina=bin/marina

say=$marina
[ "${MARINA_STATE:-/var/lib/marina}" = /var/lib/marina ] || say="MARINA_STATE=$MARINA_STATE $say"
[ -z "${SUDO_USER:-}" ] || say="sudo $say"

echo
echo "== Two Kubernetes clusters, side by side with the service"
$marina cluster apply -f examples/clusters.json --wait
$marina image load bin/hello.tar --cluster team-a,team-b --quiet
for c in team-a team-b; do
	$marina cluster kubectl $c -- apply -f "$PWD/examples/hello/kubernetes.yaml"
done
for c in team-a team-b; do
	$marina cluster kubectl $c -- rollout status deployment/hello --timeout=2m
	$marina cluster kubectl $c -- wait service/hello --for='jsonpath={.status.loadBalancer.ingress[0].ip}' --timeout=1m >/dev/null
done
echo
echo "== Calling the Service in each at its load balancer's address"
for c in team-a team-b; do
	address=$($marina cluster kubectl $c -- get service hello -o 'jsonpath={.status.loadBalancer.ingress[0].ip}')
	printf '%s  http://%s  ' "$c" "$address"
	curl -fsS --retry 20 --retry-connrefused --retry-delay 1 --max-time 5 "http://$address/"
done
echo
echo "== What they cost"
for c in team-a team-b; do
	$marina cluster show $c
	echo
done
cat <<EOT
Your clusters. Next:

  $say cluster kubectl team-a -- get pods -A
  $say cluster kubeconfig team-a      into ~/.kube/config, for any kubectl
  $say cluster create mine            another one
  $say cluster scale team-a 2 --wait  more nodes
EOT
