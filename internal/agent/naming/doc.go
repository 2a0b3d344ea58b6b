// Package naming makes names of files and containers out of ids that come from elsewhere, and says which ids can be
// names as they are. No id becomes a path, is too long, or names what is another's.
package naming
