// Package locks says who may do something when: a lock for each name somebody uses right now (Table), and nothing for
// all others, so that whoever asks for names that do not exist, or for ever new ones, leaves nothing behind; and how
// many may do the same at a time (Slots).
package locks
