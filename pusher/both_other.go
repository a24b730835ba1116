//go:build !amd64 || purego

package pusher

// canDigestBoth: here crypto/md5 and crypto/sha256 do all, one after the other.
const canDigestBoth = false

func digestBoth(*[4]uint32, *byte, *[8]uint32, *byte, int) { panic("pusher: not for this processor") }

func digestMD5(*[4]uint32, *byte, int) { panic("pusher: not for this processor") }
