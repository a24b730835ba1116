//go:build !purego

package pusher

// plainRun is how many bytes of b, from the first on, are no quote, backslash or
// control character. It may leave up to 31 at the end of b unseen.
//
//go:noescape
func plainRun(b []byte) int
