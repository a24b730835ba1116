package pusher

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

// checkBoth compares what is made in one go with what the library makes one after
// the other, and reports whether it was.
func checkBoth(t *testing.T, secret, text, body []byte) bool {
	t.Helper()
	m := NewKey("k", string(secret)).macs.Get().(*mac)
	m.text = append(m.text[:0], text...)
	given := bytes.Clone(body)
	if !m.both(body) {
		return false
	}
	h := hmac.New(sha256.New, secret)
	h.Write(text)
	if want := hex.EncodeToString(h.Sum(nil)); string(m.hex[:]) != want {
		t.Fatalf("secret %x, text of %d, body of %d: HMAC %s, want %s", secret, len(text), len(body), m.hex, want)
	}
	if want := md5.Sum(body); m.bodySum != want {
		t.Fatalf("secret %x, text of %d, body of %d: MD5 %x, want %x", secret, len(text), len(body), m.bodySum, want)
	}
	if !bytes.Equal(m.text, text) || !bytes.Equal(body, given) {
		t.Fatal("text or body was changed")
	}
	return true
}

func TestBothInOneGo(t *testing.T) {
	if !canDigestBoth {
		t.Log("this processor has no instructions for SHA-256: crypto/md5 and crypto/sha256 do it")
	}
	random := rand.NewChaCha8([32]byte{1})
	bytesOf := func(n int) []byte { b := make([]byte, n); _, _ = random.Read(b); return b }
	made := 0
	for n := range 1300 {
		for _, text := range []int{n % 300, 119, 120, 55, 56, 64, 0} {
			if checkBoth(t, bytesOf(n%140), bytesOf(text), bytesOf(n)) {
				made++
			}
		}
	}
	if canDigestBoth && made < 6000 {
		t.Errorf("only %d were made in one go", made)
	}
}

func FuzzBothInOneGo(f *testing.F) {
	f.Add([]byte("secret"), []byte("POST\n/apps/7/events\nauth_key=k"), bytes.Repeat([]byte("a"), 500))
	f.Add(bytes.Repeat([]byte("s"), 65), bytes.Repeat([]byte("t"), 56), bytes.Repeat([]byte("b"), 1024))
	f.Fuzz(func(t *testing.T, secret, text, body []byte) { checkBoth(t, secret, text, body) })
}
