// Package machine is `marina machine`: the machines of the pool, what they give and what of it is reserved.
package machine
