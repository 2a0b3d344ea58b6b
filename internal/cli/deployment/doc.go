// Package deployment is `marina deployment`: changes of apps that are on their way, listed, followed and undone.
package deployment
