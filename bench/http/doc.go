//go:build linux

// Command http measures the data port of pushguard beside nginx and HAProxy, on loopback, in one run.
// bench/run builds and starts it; bench/RESULTS.md says what each row is and what is not measured.
//
//	http distance  the grid of an upstream as far away as Pusher is, open loop, beside direct and nginx
//	http compare   start everything, measure in interleaved rounds, print Markdown tables
//	http stub      the upstream: answers 200 {} and counts what came
//	http pool      a file of signed publishes for wrk and load
//	http load      a client with one request in flight, or at a constant rate (open loop)
//
// Two processor cores are used. The proxy that is measured has one to itself; wrk, the load client and the
// upstream share the other. All proxies run all the time, and one at a time gets load.
//
// It is for Linux: it pins processes, reads /proc, and its upstream and client sit on epoll, so that the core
// they share is not full long before the proxy's is.
package main
