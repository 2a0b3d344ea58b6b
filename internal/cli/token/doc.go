// Package token is `marina token`: tokens that open the datacenter's door, and the CA certificate by which it is known.
package token
