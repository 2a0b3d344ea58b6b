// Package retry waits between attempts at what must succeed sooner or later, and gives up only when it is told to.
package retry
