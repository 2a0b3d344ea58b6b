// Without versions of its own: each minor's module builds this source against its pins.
module github.com/marinaos/marina/bundle/kubernetes/hyperkube

go 1.26.6
