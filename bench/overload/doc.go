//go:build linux

// Overload offers one serve twice what it can carry, and tells whether what is
// critical still goes through as on an idle day.
//
//	go run ./bench/overload                         # about three minutes: both bottlenecks
//	go run ./bench/overload --bottleneck upstream   # Pusher's side carries only so much
//	go run ./bench/overload --peak 12000 --binary … # the same load for another binary
//	go run ./bench/overload --bottleneck cpu        # serve has half a core, and that is full
//
// Three phases: idle, a search for the peak (the most publishes a second that are
// answered 200, at any rate that was offered), and twice that peak. One publish in
// twenty is critical, the rest is normal and bulk. The generator is open loop:
// publishes are due at fixed times, each is really sent at its time over a
// connection of its own if need be, and latency counts from when it was due.
//
// Serve runs on core 1, generator and upstream on core 0; the upstream takes
// 20 ms a call. Where the processor is to be the bottleneck a busy loop shares
// core 1 with serve: otherwise core 0 is full first. How idle both were is told.
// Exit code 1 if the p99 of what is critical is more than twice that of the idle
// phase, or goodput is less than nine tenths of the peak.
package main
