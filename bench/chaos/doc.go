// Chaos is the budget under fire: three serve processes on one real Redis, load
// that does not wait for answers, faults at random, and the simulator as judge of
// what really arrived and what it bills.
//
//	go run ./bench/chaos                          # 60 s on one Redis, 60 s on Sentinel, needs redis-server
//	go run ./bench/chaos -seed 7 -for 5m -rate 3000 -store sentinel
//
// The plan is made so that it runs out on the way. Faults, drawn by -seed: kill -9
// of a replica and its restart, a rolling restart, Redis that hangs for five
// seconds (SIGSTOP), Redis that loses everything (FLUSHALL), Redis that is killed
// and comes back empty; with Sentinel a failover instead of that.
//
// What must hold, or the exit code is 1: the simulator's own bill never passes the
// plan; no publish that was answered 200 "sent" is missing at the simulator, none
// arrived twice; every refusal names its outcome and reason; at the end the
// replicas' count is not below the bill, and what is left of the plan when all
// replicas say that it is spent is no more than what killed replicas held, by
// their own records on disk, what publishes without an answer may have cost, and
// a message a replica.
//
// The history is not one for a checker of linearizability: leases are there so that
// replicas need not agree on each publish. What must hold is a bound on a sum, and
// the bill is that sum.
package main
