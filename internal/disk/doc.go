// Package disk bounds what the rooms of a master keep in directories: images, archives. All of it lies on the
// filesystem that the store needs to go on at all, so nothing is written when less than a reserve would be left free.
//
// The reserve is as much as the store's quota, and a tenth of filesystems that are small. It is judged before something
// is written and again as it grows, not set aside: whoever writes beside these rooms (logs, volumes of tasks) may still
// take it.
//
// Refusals are errdefs.ErrResourceExhausted and say in numbers what is free; the caller adds what can be removed.
package disk
