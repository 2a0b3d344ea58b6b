// The program of Kubernetes 1.37; see package hyper.
package main

import (
	"os"

	"github.com/marinaos/marina/bundle/kubernetes/hyper"
)

func main() { os.Exit(hyper.Main()) }
