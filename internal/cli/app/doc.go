// Package app is `marina app`: services, that is what should run and how many of it, over Marathon's API.
package app
