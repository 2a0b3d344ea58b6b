// Package exit says how a command ends: with a code that scripts branch on, and, when it failed, one sentence that
// names the thing and one that says what to do next.
//
// It is the floor of the command line: every other package of it returns these errors, and only the root prints them.
// An error of any other type ends a command with Failed.
package exit
