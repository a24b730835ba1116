package proxy

import (
	"errors"
	"testing"

	"github.com/pushguard/pushguard/pusher/upstream"

	"github.com/pushguard/pushguard/pusher"
)

// An upstream asks no resolver that leads to a link-local address.
func TestAnUpstreamAtALinkLocalAddress(t *testing.T) {
	up, err := NewUpstream(UpstreamConfig{URL: "http://169.254.169.254", Key: pusher.NewKey("k", "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	if c, err := up.client.DialTimeout("169.254.169.254:80", 0); err == nil {
		c.Close()
		t.Error("connected")
	} else if early := (*upstream.NotSentError)(nil); !errors.As(err, &early) || connectFailure(early.Err) != "its name cannot be resolved" {
		t.Errorf("%T %v", err, err)
	}
}
