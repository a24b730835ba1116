//go:build !purego

package pusher

// digestBoth takes so many blocks of p into the state of an MD5, and as many of q
// into that of a SHA-256; blocks is at least one. digestMD5 is the first half alone.
//
//go:noescape
func digestBoth(md5 *[4]uint32, p *byte, sha *[8]uint32, q *byte, blocks int)

//go:noescape
func digestMD5(md5 *[4]uint32, p *byte, blocks int)

// shaExtensions reports whether the processor has the instructions for it.
func shaExtensions() bool

var canDigestBoth = shaExtensions()
