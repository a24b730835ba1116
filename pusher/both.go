package pusher

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
)

// A publish is verified by an HMAC-SHA256 of its query and an MD5 of its body,
// about half as long each as all else that judging it takes. Where the processor
// has instructions for SHA-256, both are made in one go: see both_amd64.s.

// hmacStates are SHA-256 after the first block of each half of an HMAC, which
// depends on the key alone (RFC 2104, 4).
type hmacStates struct{ inner, outer [8]uint32 }

var (
	md5Begin    = [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	sha256Begin = [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}
)

// newHMACStates prepares a key, or returns nil where digestBoth cannot be used.
func newHMACStates(secret []byte) *hmacStates {
	if !canDigestBoth {
		return nil
	}
	var key, pad [sha256.BlockSize]byte
	if len(secret) > len(key) {
		sum := sha256.Sum256(secret)
		copy(key[:], sum[:])
	} else {
		copy(key[:], secret)
	}
	h := &hmacStates{inner: sha256Begin, outer: sha256Begin}
	ignored := md5Begin
	for i := range pad {
		pad[i] = key[i] ^ 0x36
	}
	digestBoth(&ignored, &pad[0], &h.inner, &pad[0], 1)
	for i := range pad {
		pad[i] = key[i] ^ 0x5c
	}
	digestBoth(&ignored, &pad[0], &h.outer, &pad[0], 1)
	return h
}

// bothMost is the longest body that is digested before its signature is known to be
// right: who has no secret must not make a long one cost more than its reading. It
// holds a publish of the largest size that the shared clusters take.
const bothMost = 16 << 10

// padding is what both digests put between a message and its length.
var padding = [sha256.BlockSize]byte{0x80}

// both leaves the hexadecimal HMAC-SHA256 of m.text in m.hex and the MD5 of body
// in m.bodySum. It reports false, and has done nothing, where the body is too
// short for the one to be hidden behind the other, or longer than bothMost.
func (m *mac) both(body []byte) bool {
	n := len(m.text)
	inner := (n + 1 + 8 + sha256.BlockSize - 1) / sha256.BlockSize
	whole := len(body) / md5.BlockSize
	if m.states == nil || whole < inner+1 || len(body) > bothMost {
		return false
	}
	// The rest of the inner message stands behind the text, and is cut off again.
	m.text = append(m.text, padding[:inner*sha256.BlockSize-8-n]...)
	m.text = binary.BigEndian.AppendUint64(m.text, uint64(sha256.BlockSize+n)*8)
	in, out, sum := m.states.inner, m.states.outer, md5Begin
	digestBoth(&sum, &body[0], &in, &m.text[0], inner)
	m.text = m.text[:n]

	var last [sha256.BlockSize]byte
	for i, w := range in {
		binary.BigEndian.PutUint32(last[4*i:], w)
	}
	last[sha256.Size] = 0x80
	binary.BigEndian.PutUint64(last[len(last)-8:], (sha256.BlockSize+sha256.Size)*8)
	digestBoth(&sum, &body[inner*md5.BlockSize], &out, &last[0], 1)
	for i, w := range out {
		binary.BigEndian.PutUint32(m.sum[4*i:], w)
	}
	encodeHex(m.hex[:], m.sum[:])

	if rest := whole - inner - 1; rest > 0 {
		digestMD5(&sum, &body[(inner+1)*md5.BlockSize], rest)
	}
	var tail [2 * md5.BlockSize]byte
	k := copy(tail[:], body[whole*md5.BlockSize:])
	tail[k] = 0x80
	blocks := (k + 1 + 8 + md5.BlockSize - 1) / md5.BlockSize
	binary.LittleEndian.PutUint64(tail[blocks*md5.BlockSize-8:], uint64(len(body))*8)
	digestMD5(&sum, &tail[0], blocks)
	for i, w := range sum {
		binary.LittleEndian.PutUint32(m.bodySum[4*i:], w)
	}
	return true
}
