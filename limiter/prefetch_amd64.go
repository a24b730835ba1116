package limiter

import "unsafe"

// prefetch has cache lines from p on fetched while other work goes on. It reads
// nothing, so it needs no lock and p may be nil.
//
//go:noescape
func prefetch(p unsafe.Pointer, lines int)
