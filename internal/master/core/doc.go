// Package core is the kernel at work as a pure state machine: all that a leader knows, what changes it, and what
// follows. Nobody can write I/O in here; master is the loop around it, and the simulator is another.
//
// # Step
//
// [State] is everything a leader knows, and [State.Step] the only way it changes: events and a time go in, [Effects]
// come out. There is no clock, network, disk or randomness inside, and no order of a map shows, so that a simulator can
// replay years of faults from a seed. Whoever drives it gathers events while a transaction is under way, cuts them by
// [event.Steps], commits every row they changed, and only then lets frames, answers and changes out. Nothing is ever
// rolled back in part: a driver that cannot commit drops the state, and the next leader loads what is durable.
//
// What is known of an instance is a kernel.Record, which is replaced and never changed: what leaves a step
// (Effects.Changes, Views, lists that a look takes) is pointers, and readers work on them while the owner goes on. An
// [Audit] holds what a step placed, resized and ended (Effects.Charges) against totals of its own, before it is
// committed.
//
// # The files
//
// Calls run down this list. step.go applies events: requests.go those of schedulers, machines.go those of operators,
// agents.go those of agents. place.go serves the queue, preempt.go finds what makes way for it. load.go fills the
// tables from rows, rows.go says what rows hold. instance.go places and ends an instance: each table that has a part of
// it takes that and gives it back, in one order, said once; tables.go has all tables. fleet.go keeps the machines,
// capacity.go counts what is taken of machines and roles, endpoints.go tells where tasks are reached, views.go shows
// things to readers, effects.go gathers the effects of a step, and audit.go judges them. state.go and config.go are
// what a driver makes.
//
// Tables that can be tested by themselves are packages, siblings of this one, each with its own fields, importing at
// most those below it: spec, reservation, expose, vip, subnet, endpoint, queue, removed, ended, interner. So are the
// words that a driver shares with this package: event, what can happen, and row, what is durable.
//
// # Ownership and failure
//
// One goroutine owns a State and its Audit. A State that was given events in an order that cannot be, a Step that
// refers to what does not exist, is refused by a reply or an end of a session, never by a panic.
//
// # What is durable, and what is not
//
// Rows lie under "kernel/": specs once, agents with their subnets, what is assigned to each agent packed in chunks,
// quotas, the pool, removed machines, addresses of named VIPs, ids that ended. They are written in an order of which
// every beginning can be loaded, so that effects too large for one transaction are cut into several. States that are
// not terminal, health, and the queue are memory: agents report the former anew to every leader, and schedulers ask
// again for what they want and do not see placed.
//
// An instance's row is durable before its agent hears of it, and gone, with its id among the ended, before its agent
// may forget it.
//
// # An ended id is never launched again
//
// Schedulers draw a fresh id for every instance, so a repeat can only be an old request again. Three things stop it.
// Requests are calls into the leading process: one made under an earlier leadership is answered
// errdefs.ErrUnavailable and never reaches a later State. An id that is placed or waits is left alone. And the last
// 32,768 ids of a framework that ended are kept in the store, in a ring of rows of which the newest is rewritten with
// the end it records, so that a scheduler that repeats a request after ErrUnavailable, its outcome unknown, is
// harmless as well. A scheduler that keeps ids of its own across leaders must not repeat one after that many others
// have ended.
//
// # What waits
//
// A launch puts instances into an entry of the queue; at the end of the step, or before the next request that could
// depend on it, the queue is served: roles by turns as the quota tree says, within a role the higher priority first,
// then what waits longest. Everything is tried when capacity appeared, else what is new; an entry that no machine took
// before is tried only where something became free. Others of a lower priority are preempted for what waits, or a
// machine is kept for it when it waits for long (backfill): an entry is attended to once a second, a few in one step.
// A backfill ends by itself, and is memory like the queue.
//
// # What outlives instances
//
// A reservation (kernel.Reservation) is a row of its own, written with the first instance that is placed with it:
// machine, address, host ports, volumes. One instance at a time holds it; the next waits in the queue and gets the
// same. Its disk counts against machine and quota with or without a holder. A reservation that was released stays,
// marked so, until its agent says that nothing is left of it. Ports that an owner was given beside its spec (Expose)
// are rows too; they go out with the endpoints of its instances.
//
// # Agents
//
// An agent that says nothing for Config.Suspect gets no new instances; after Config.Unreachable it is away: its
// instances say so, they are not ready any more, and nothing is killed. Schedulers may then Forget them, unless the
// brake holds: when a large share of the agents is away at once, the fault is more likely here or in the network. An
// agent that returns is told all that is assigned to it, and stops the rest. After a change of leader agents have
// Config.Grace to report; until all have, or it is over, Complete is false and no endpoints are sent, so that agents
// go on with those they have.
//
// Of two processes with one identity the later one to register wins and the earlier one, known by its incarnation, is
// refused. An agent with a row that cannot be read is set aside: it gets no session, so its tasks go on untouched,
// until the row is repaired.
package core
