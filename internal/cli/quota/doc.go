// Package quota is `marina quota`: shares of the pool, that is who has, uses and waits for how much.
package quota
