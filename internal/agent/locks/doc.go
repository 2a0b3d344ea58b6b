// Package locks keeps one lock for each name somebody uses right now, and nothing for all others: whoever asks for names that do
// not exist, or for ever new ones, leaves nothing behind.
package locks
