// Command budget prints what the shared ledger costs and how exact it is, seen
// from outside: real serve processes, real Redis servers, the simulator's bill.
//
//	go run ./bench/budget [speed] [exact] [forecast] [months] [memory]
//
// It takes some minutes; a part by itself less. speed: a slow Redis beside a
// fast one, and round trips. exact: three guards use a plan up together.
// forecast: how far the use at reset is off, on generated weeks. memory: what a
// million channels take. Read the ratios and the counts; times differ from
// machine to machine. It exits with 1 if a target is missed: at most 2 round
// trips for 1,000 publishes, a publish's p99 with a Redis that takes 100 ms at
// most 1.1 times that with a fast one, no message over the plan, a median error
// of the forecast below 10 %, a million channels in 40 MB.
package main
