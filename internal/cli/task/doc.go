// Package task is `marina task`: the containers that run, what they wrote, and commands in them.
package task
