// The program of Kubernetes 1.37; see package hyperkube.
package main

import (
	"os"

	"github.com/marinaos/marina/bundle/kubernetes/hyperkube"
)

func main() { os.Exit(hyperkube.Main()) }
