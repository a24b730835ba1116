// Package peers measures pushguard's decision beside other rate limiters for Go, in one run:
//
//	cd bench/peers && go test -run '^$' -bench . -cpu 1,2
//
// It is a module of its own, so that the peers never enter pushguard's. Versions are pinned in go.mod.
//
// BenchmarkMemory is a decision without a shared state, BenchmarkShared one that several replicas share through a real
// redis-server, which the benchmark starts, or through gubernator's daemons, which hold the state in memory and run in
// the process of the benchmark: their allocations are counted too. Nothing is ever refused by a limit: what is measured is the common case. A
// row that fails some of its decisions reports how many, in percent.
//
// What is compared is not alike, and cannot be: the peers ask one bucket of one key, while pushguard's Admit finds the
// rule, looks for duplicates, asks the buckets of caller, event, channel, rule and app, the breaker, and reserves messages
// from a plan that all replicas share. Each row reads the clock as its users must: the peers by themselves,
// pushguard's once a decision.
package peers
