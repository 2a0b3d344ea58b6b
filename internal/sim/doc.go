// Package sim is the seeded simulator.
package sim
