// The Go vulnerability database, as a module: its data/osv is what make vuln reads. Nothing imports it, so go mod tidy
// would remove the line. To bring it up to date: make vuln-update.
module github.com/marinaos/marina/tools/vulndb

go 1.26.6

require golang.org/x/vulndb v0.0.0-20261105234957-e22db6528018
