package bug

// Bug is a mistake that a simulation makes on purpose, to show that an invariant would find it. It is made in the
// wiring between the rooms, never in their code.
type Bug string

// The planted bugs.
const (
	None                 Bug = ""
	SkipFence            Bug = "skip-fence"            // a leader's writes do not carry the guard on its leadership
	SendBeforeCommit     Bug = "send-before-commit"    // frames leave while the write they rest on is on its way
	LoseGroupsOnReturn   Bug = "lose-groups-on-return" // the first groups placed on a returned agent are not sent
	AgentKeepsUnknown    Bug = "keep-unknown-at-sync"  // an agent does not drop what a Sync does not mention
	LoadStaleRows        Bug = "load-stale-rows"       // a new leader decides on what the store held a moment ago
	LoadNoQuotas         Bug = "load-no-quotas"        // a new leader does not read the quotas
	AgentTakesLowerEpoch Bug = "accept-lower-epoch"    // an agent applies frames of a leader that was replaced
	AckBeforeDurable     Bug = "ack-before-durable"    // terminal statuses are acknowledged before their commit
	ForgetQueue          Bug = "forget-the-queue"      // what waits is not tried again when room appears
	AgentForgetsRunning  Bug = "forget-at-restart"     // an agent process starts without its disk, everything anew
	TrustUnknownOutcome  Bug = "trust-unknown-outcome" // a write of unknown outcome is taken for durable
	DoubleHostPort       Bug = "double-host-port"      // two instances of an agent are given one host port
	CountOnlyKnown       Bug = "count-only-known"      // a scheduler replaces what has not reported to a new leader yet
	NewsOutOfOrder       Bug = "news-out-of-order"     // schedulers hear of the changes of one commit backwards
	PrioritiesReversed   Bug = "priorities-reversed"   // what is launched with a high priority gets a low one
	LoseDurable          Bug = "lose-durable"          // the store answers that a write is durable and loses it
	ForgetBeforeAck      Bug = "forget-before-ack"     // an agent forgets a task that ended as soon as it has told so once
	DoubleAddress        Bug = "double-address"        // two instances of an agent are given one address
	LoadSkipsChunk       Bug = "load-skips-chunk"      // a new leader does not read one of the rows of what is assigned
	NewsLost             Bug = "news-lost"             // schedulers do not hear of the end of some instances
	EpochInSession       Bug = "epoch-in-session"      // an agent forgets the newest leader's epoch when it dials
	LoseRemoval          Bug = "lose-removal"          // that a machine was removed is not written
	SubnetKept           Bug = "subnet-kept"           // the subnets of machines that were removed are not given to others
	BrakeCountsRemoved   Bug = "brake-counts-removed"  // removed machines count as away for the brake
	WaitForRemoved       Bug = "wait-for-removed"      // a new leader waits for machines that were removed
	ReservationForgotten Bug = "reservation-forgotten" // reservations of a removed machine are not called lost
	LoadNoRemoved        Bug = "load-no-removed"       // a new leader does not read which machines were removed
	RemovedRunsOn        Bug = "removed-runs-on"       // a machine that was removed is not told
	StopOnce             Bug = "stop-once"             // an agent process forgets what the one before it was stopping
)

// All lists all planted bugs.
func All() []Bug {
	return []Bug{SkipFence, SendBeforeCommit, LoseGroupsOnReturn, AgentKeepsUnknown, LoadStaleRows, LoadNoQuotas,
		AgentTakesLowerEpoch, AckBeforeDurable, ForgetQueue, AgentForgetsRunning, TrustUnknownOutcome, DoubleHostPort,
		CountOnlyKnown, NewsOutOfOrder, PrioritiesReversed, LoseDurable, ForgetBeforeAck, DoubleAddress, LoadSkipsChunk,
		NewsLost, EpochInSession, StopOnce, LoseRemoval, SubnetKept, BrakeCountsRemoved, WaitForRemoved,
		ReservationForgotten, LoadNoRemoved, RemovedRunsOn}
}

// On reports whether it is this bug that is planted.
func (b Bug) On(this Bug) bool { return b == this }
