// Package audit is `marina audit`: who changed what, from where, with which outcome.
package audit
