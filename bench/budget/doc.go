// Command budget prints what the shared ledger costs and how exact it is, seen
// from outside: real serve processes, real Redis servers, the simulator's bill.
//
//	go run ./bench/budget
//
// It takes about a minute. Read the ratio and the counts; times differ from
// machine to machine. It exits with 1 if a target of the ledger is missed:
// at most 2 round trips for 1,000 publishes, a publish's p99 with a Redis that
// takes 100 ms at most 1.1 times that with a fast one, no message over the plan.
package main
