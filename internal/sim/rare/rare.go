package rare

import "github.com/marinaos/marina/internal/invariant"

// The rare paths. A batch of seeds must reach each of them.
const (
	DeploymentFinished   = "deployment finished"
	DeploymentForced     = "deployment forced over another"
	MachineChanged       = "machine came back with another address or size"
	FrameLost            = "frame lost"
	FrameDoubled         = "frame doubled"
	FrameReordered       = "frame overtook another"
	FrameRefused         = "agent refused a frame of an old leader"
	FrameRepeated        = "agent ignored a frame it had"
	FrameGap             = "agent ended a session on a gap"
	SessionEnded         = "master ended a session"
	RegistrationLost     = "first frame of a session lost"
	SyncDropped          = "agent dropped a group that a sync did not mention"
	StatusRepeated       = "terminal status repeated"
	TaskReadopted        = "task adopted by a later agent process"
	TaskLostByReboot     = "task lost by a reboot"
	TaskEndedWhileAway   = "task ended while no agent process looked"
	PortWaited           = "task waited for a host port"
	PortTaken            = "host port taken"
	WriteFenced          = "write fenced"
	WriteConflicted      = "write in conflict"
	OutcomeUnknown       = "outcome of a write unknown"
	ZombieResumed        = "paused leader resumed after another was elected"
	Replaced             = "instance replaced while its agent was away"
	Forgotten            = "instance forgotten"
	ForgetRefused        = "forget refused"
	LaunchWaits          = "launch waits for room"
	Withdrawn            = "waiting instance withdrawn"
	OrphanRan            = "container ran without an intent"
	QuotaBelowUse        = "quota set below what is used"
	ReturnedAfterForget  = "agent returned with groups that were forgotten"
	MadeWay              = "instance made way for a higher priority"
	PreemptibleMadeWay   = "instance on loan made way for one that was not"
	GuaranteeHeld        = "launch waits for what is held for the guarantees of others"
	Backfilled           = "room kept for what waits"
	ClockJumped          = "leader's clock jumped ahead"
	ClockBack            = "leader's clock jumped back"
	UnsyncedLost         = "write of a leader that died was lost"
	NewsMerged           = "news skipped a state"
	MachineRemoved       = "machine removed"
	RemovalRefused       = "removal of a machine refused"
	ReservationLost      = "reservation lost with its machine"
	ReservationBegunAnew = "lost reservation begun anew"

	RemovedWhileConnected = "machine removed while connected"
)

// New returns the list of rare paths that a batch must reach.
func New() *invariant.Sometimes {
	return invariant.NewSometimes(DeploymentFinished, DeploymentForced, MachineChanged, FrameLost, FrameDoubled,
		FrameReordered, FrameRefused, FrameRepeated, FrameGap, SessionEnded,
		RegistrationLost, SyncDropped, StatusRepeated, TaskReadopted, TaskLostByReboot,
		TaskEndedWhileAway, PortWaited, PortTaken, WriteFenced, WriteConflicted, OutcomeUnknown, ZombieResumed, Replaced,
		Forgotten, ForgetRefused, LaunchWaits, Withdrawn, OrphanRan, QuotaBelowUse, ReturnedAfterForget,
		MadeWay, PreemptibleMadeWay, GuaranteeHeld, Backfilled, ClockJumped, ClockBack, UnsyncedLost, NewsMerged,
		MachineRemoved, RemovalRefused, ReservationLost, ReservationBegunAnew, RemovedWhileConnected)
}
