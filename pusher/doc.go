// Package pusher is the protocol of Pusher Channels' HTTP API, both sides of
// it: what a server needs to read and check a request as Pusher does, and what
// a client needs to sign one.
//
// A request is read in three steps, none of which allocates in steady state:
//
//	q.Parse(rawQuery)                                   // Query: the pairs as they came
//	key.Verify("POST", rawPath, &q, body, now)          // Key: signature, clock, body_md5
//	events, refusal := decoder.Events(body, &q, limits) // Decoder: one or many Publish
//
// Everything that Pusher would refuse comes back as an *Error with Pusher's
// status and a plain text sentence. Pusher's own words stand first, unchanged,
// so that code which matches on them goes on working; what to do about it
// follows.
//
// Slices handed out borrow from the request or from the Query or Decoder that
// made them, and are valid until its next use. A Key, a Seed, Limits and
// Billing may be used by many goroutines at once; a Query and a Decoder by one.
//
// The rules come from https://pusher.com/docs/channels/library_auth_reference/rest-api/
// and from Pusher's own signing library, https://github.com/pusher/pusher-signature.
package pusher
