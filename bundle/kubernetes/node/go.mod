module github.com/marinaos/marina/bundle/kubernetes/node

go 1.26.6

require github.com/marinaos/marina/internal/kubernetes/wire v0.0.0

replace github.com/marinaos/marina/internal/kubernetes/wire => ../../../internal/kubernetes/wire
