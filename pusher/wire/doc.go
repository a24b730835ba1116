// Package wire is HTTP/1.1 as values: a Request and a Response, how they are read and written, and
// where one ends in a stream of bytes.
//
// It reads the few forms that Pusher's SDKs and Pusher itself send, and says no to all else, which
// fasthttp then reads. Its contract is fasthttp: fuzz tests hold every byte that is read or written
// here to what fasthttp would have read or written. It does no input or output of its own.
package wire
