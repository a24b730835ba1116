package proxy

import (
	"strconv"
	"testing"
	"time"

	"github.com/pushguard/pushguard/pusher/wire"
)

func TestARefusalKeepsNothingOfWhatWasAnsweredBefore(t *testing.T) {
	var r wire.Response
	r.Last, r.Would, r.RetryAfter = true, "x", 3
	refuse(&r, 400, "invalid_request", "no.")
	if !r.Last || r.Would != "" || r.RetryAfter != 0 || r.Outcome != outcomeRefused {
		t.Errorf("%+v", r)
	}
}

func TestAppendSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Second: "1", 1500 * time.Millisecond: "1.5", 998_700_000: "0.999", 999_600_000: "1", time.Millisecond: "0.001",
		20 * time.Millisecond: "0.02", 61*time.Second + 230*time.Millisecond: "61.23", 400 * time.Microsecond: "0",
	} {
		if got := string(appendSeconds(nil, d)); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestAppendQuoted(t *testing.T) {
	for _, name := range []string{"", "a", "refused", `a"b`, `a\b`, "a\nb", "a\x7f", "ä", "a\xffb", "private-user-123 longer than one word", "eight ch\x00"} {
		if got, want := string(appendQuoted(nil, name)), strconv.Quote(name); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
