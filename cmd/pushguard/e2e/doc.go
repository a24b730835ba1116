// Package e2e holds pushguard's end-to-end tests and nothing else: the binary
// as it is built, as child processes on free ports, between real Pusher SDKs
// (npm pusher, pusher-http-go), real pusher-js clients on a real server
// (soketi), a real redis-server, and the simulator where refusals and the bill
// matter.
//
// What they need is installed by .ci/deps. Nothing is skipped: without it they
// fail and say so.
//
// Every log line that any process of the run writes is searched for secrets and
// signatures at the end.
package e2e
