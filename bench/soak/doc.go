// Soak runs one serve for a long time under load and faults, and tells whether
// its memory, goroutines and file descriptors stay where they are.
//
//	go run ./bench/soak                                            # half a minute
//	go run ./bench/soak --for 30m --rate 2000 --svg bench/soak.svg  # the real thing; needs redis-server
//
// The faults come round again and again, one cycle after the other: Pusher
// answers 503, Pusher does not answer at all, the store hangs, the config is
// reloaded, a broken config is refused; and all the time one connection in fifty
// publishes is closed and opened anew. After a warm-up, what the process holds in
// the quiet part at a cycle's end is compared between the first cycles and the
// last. Each publish of the important kind is counted at both ends.
//
// With --only it meets some of the faults, and with --watch it tells each second:
//
//	go run ./bench/soak --only silent --watch --rate 3000 --for 40s
//
// SIGINT and SIGTERM end it and all that it started.
//
// Exit code 1 if something grew, if a publish that was answered 200 did not
// arrive or arrived twice, if the process ended, or at a signal.
package main
