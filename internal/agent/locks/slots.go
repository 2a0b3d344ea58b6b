package locks

import "context"

// Slots bounds how many do something at a time: its capacity.
type Slots chan struct{}

// Take waits for a slot, or for ctx to end: then it is ctx's error, and no slot was taken.
func (s Slots) Take(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		if err := ctx.Err(); err != nil { // both were there
			s.Give()
			return err
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Give gives a slot back.
func (s Slots) Give() { <-s }
