// Package upstream is the way to one upstream: how it is resolved, dialled and spoken to over TLS, how
// many calls may be under way, and kept-alive connections on which a call is made once.
//
// On Linux a call needs no goroutine. Reserve takes a kept connection, Start has the request written,
// and the call's Resumer goes on when something comes or its time is over; Finish then reads the answer. Do
// is the same for a caller that waits. A call that failed before its first byte left is a NotSentError;
// of any other failure the upstream may have heard, so a request is never sent twice.
//
// The room knows nothing of what a request means: signing, admission and what an answer says are
// the guard's.
package upstream
