package detect_test

import (
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
)

// A small rise of a whole caller is named whole, and where the rest of the caller is
// as usual, the one event.
func TestSmallRiseIsNamedForWhatItIs(t *testing.T) {
	for _, c := range []struct {
		name  string
		rest  float64 // times the usual, of the other event
		event string
	}{
		{"the whole caller rises", 1.6, detect.Any},
		{"one event rises", 1, chat.Event},
	} {
		p := week(t)
		p.rate[chat], p.rate[typing] = 20*1.6, 30*c.rest
		p.run(20*time.Minute, time.Second)
		if len(p.log) == 0 {
			t.Fatalf("%s: nothing is noticed", c.name)
		}
		got := p.log[len(p.log)-1].Incident.Culprits
		if len(got) != 1 || got[0].Caller != "chat" || got[0].Event != c.event {
			t.Errorf("%s: named %+v, want its event %q", c.name, got, c.event)
		}
	}
}
