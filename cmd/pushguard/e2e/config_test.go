package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"golang.org/x/crypto/nacl/secretbox"
)

func timeNow() time.Time { return time.Now() }

// oneApp is a config with one app and one caller before an upstream. More lines
// may follow for the account (indented by four) or the top.
func oneApp(upstream string) string {
	return fmt.Sprintf(`
accounts:
  - name: care
    plan: growth
    apps:
      - id: %q
        key: %s
        secret: %s
        upstream: http://%s
        callers:
          - { name: api, key: %s, secret: %s }
`, appID, appKey, appSecret, upstream, callerKey, callerSecret)
}

// decryptAll replaces each encrypted payload by what it hides, as
// https://pusher.com/docs/channels/using_channels/encrypted-channels/ says:
// NaCl secretbox under SHA-256 of channel and master key.
func decryptAll(t testing.TB, events []simEvent) {
	t.Helper()
	master, err := base64.StdEncoding.DecodeString(masterKey)
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		e := &events[i]
		e.BodyMD5 = "" // covers the random nonce
		var box struct{ Nonce, Ciphertext []byte }
		if json.Unmarshal([]byte(e.Data), &box) != nil || len(box.Nonce) != 24 {
			continue // the plain part of a batch
		}
		key := sha256.Sum256(append([]byte(e.Channels[0]), master...))
		plain, ok := secretbox.Open(nil, box.Ciphertext, (*[24]byte)(box.Nonce), &key)
		if !ok {
			t.Errorf("what arrived on %s cannot be decrypted: %s", e.Channels[0], e.Data)
		}
		e.Data = "decrypted: " + string(plain)
	}
}
