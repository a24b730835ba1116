//go:build !amd64 || purego

package pusher

import "encoding/binary"

// plainRun is how many bytes of b, from the first on, are no quote, backslash or
// control character. It may leave up to 31 at the end of b, or before one, unseen.
func plainRun(b []byte) (n int) {
	for ; len(b) >= 32; b = b[32:] { // four words at a time
		if special(binary.LittleEndian.Uint64(b))|special(binary.LittleEndian.Uint64(b[8:]))|
			special(binary.LittleEndian.Uint64(b[16:]))|special(binary.LittleEndian.Uint64(b[24:])) != 0 {
			break
		}
		n += 32
	}
	return n
}
