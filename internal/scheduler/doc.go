// Package scheduler is the owner loop that every scheduler of the kernel runs while its process leads: services,
// clusters, and whatever decides next how many instances of something there should be.
//
//	requests (Do) ───┐
//	kernel watch ────┼──> the owner goroutine ──> plan ──> commit (fenced) ──> Then ──> After ──> answer
//	events (Tell) ───┤           │
//	wake ────────────┘           └──> Settle: decide and carry out, until there is nothing more to do now
//
// It is mechanical: it knows no app and no cluster, and decides nothing but whether the leadership can go on.
//
// # Beginning a new scheduler
//
// A scheduler is a type with its state, made for one leadership, that holds a [Loop]:
//
//	j := &Jobs{state: newState()}
//	j.loop = scheduler.New(scheduler.Config{Name: "jobs", Framework: Framework, Store: st, Kernel: k, Fence: fence, Log: log})
//
//	func (j *Jobs) Run(ctx context.Context) error {
//		return j.loop.Run(ctx, scheduler.Work{Load: j.load, Observe: j.observe, Settle: j.settle})
//	}
//
//	func (j *Jobs) Start(ctx context.Context, id string) error {
//		return j.loop.Do(ctx, func(ctx context.Context, c *scheduler.Change) error {
//			...                                  // look at the state, refuse with an error of errdefs
//			op, err := runs.Put(id, row)
//			c.Put(op)                            // what is to be durable
//			c.Then(func() { j.state.start(id) }) // taken into the state once it is
//			return err
//		})
//	}
//
// Load reads the rows. Observe takes in what the kernel says of the instances. Settle asks a pure decide what
// follows, makes its transitions durable with CommitAll, hands the rest to the kernel, and says when to look again.
// Alarms, a Handler and Run are what daemon wants of it.
//
// # Who owns what
//
// Load, Observe, Settle, plans, and what is given to Then, After and Tell run in the owner goroutine, one at a time:
// they read the scheduler's state without its lock, and hold it while they write for the sake of readers. Nobody else
// writes. Whatever runs beside the owner (a follower of something far away) is started with Go and speaks to it with
// Tell.
//
// A plan must be quick: all requests and decisions wait for it. It reads nothing from the store that could be read
// before. It changes no state: it may be refused, or its commit may be.
//
// # How it fails
//
// Commit decides, and nobody can overrule it: once the outcome of a write is unknown, or the fence did not hold, or
// the store did not take it for any reason but its size, memory may differ from what is durable. Every later commit
// is refused, Run ends, and the next leadership begins from the store. The same holds for what Settle and After
// return: use [Ends] to tell which errors of the kernel are an object's own matter. An error of a plan, be it of a
// read that timed out, goes to the asker and to nobody else. A plan that panics is its asker's misfortune too:
// nothing is committed, and the log has the stack. A panic of Settle ends the process: rooms fence the decision about
// each of their objects with [Catch], and raise an alarm.
//
// Changes are independent of each other: CommitAll writes as many to a transaction as the store's limits allow, and a
// change that fits none by itself is refused alone. One change is one transaction, whole or not at all.
package scheduler
