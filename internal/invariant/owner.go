package invariant

import "math"

// OwnerInstances compares the instances that one owner, or one version of it, should have with those it has.
type OwnerInstances struct {
	Owner     string
	Version   string  // empty: all versions together
	Instances int     // asked for
	MaxOver   float64 // maximumOverCapacity: share of Instances that may run on top of them
	Excused   int     // of Live: told to stop and not yet ended, or given up as unreachable and to be stopped on return
	Live      int     // running, by ground truth wherever there is one
	Waiting   int     // asked for and not placed
	Reason    string  // why they wait
	Fits      string  // a machine that could take one of them, if there is one
}

// Upper bounds the instances that are live at once, apart from excused ones.
func (f OwnerInstances) Upper() int { return int(math.Ceil(float64(f.Instances) * (1 + f.MaxOver))) }

// UpperBound judges I5: the live instances of an owner, less the excused ones, are at most its instances and the share
// on top of them that its maximumOverCapacity allows.
func UpperBound(f OwnerInstances) []Violation {
	if f.Live-f.Excused <= f.Upper() {
		return nil
	}
	return violated(I5UpperBound, "owner %s %s has %d live instances, %d of them excused, and may have %d (%d asked for, %g over)",
		f.Owner, f.Version, f.Live, f.Excused, f.Upper(), f.Instances, f.MaxOver)
}

// Converged judges I7: every instance asked for is live or waits with a reason, and none is live beyond them. It holds
// only after the last fault has healed and the time that convergence may take is over.
func Converged(f OwnerInstances) []Violation {
	switch {
	case f.Live+f.Waiting != f.Instances:
		return violated(I7Converged, "owner %s %s asked for %d instances, %d are live and %d wait",
			f.Owner, f.Version, f.Instances, f.Live, f.Waiting)
	case f.Waiting > 0 && f.Reason == "":
		return violated(I7Converged, "owner %s %s has %d instances that wait without a reason", f.Owner, f.Version, f.Waiting)
	case f.Waiting > 0 && f.Fits != "":
		return violated(I7Converged, "owner %s %s has %d instances that wait (%s) while machine %s has room",
			f.Owner, f.Version, f.Waiting, f.Reason, f.Fits)
	}
	return nil
}
