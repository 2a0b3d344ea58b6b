module github.com/marinaos/marina/bundle/kubernetes/node

go 1.26.6
