// Package rare names the paths that a simulation takes seldom and that matter most. A batch of seeds must reach each of
// them, or it shows less than it seems to.
package rare
