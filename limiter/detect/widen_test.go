package detect_test

import (
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
)

// A small rise of a whole caller passes the mark first where a burst comes on
// top of it. The windows of ten minutes tell that it is the caller; and that it
// is not, where the rest of the caller is as usual.
func TestSmallRiseIsNamedWholeNotByTheBurstThatShowsIt(t *testing.T) {
	for _, c := range []struct {
		name  string
		rest  float64 // times the usual, of what does not burst
		event string
	}{
		{"the whole caller rises", 1.45, detect.Any},
		{"one event rises", 1, chat.Event},
	} {
		p := week(t)
		p.rate[chat], p.rate[typing] = 20*1.45, 30*c.rest
		p.run(15*time.Minute, time.Second)
		if len(p.log) > 0 {
			t.Fatalf("%s: named before the burst: %+v", c.name, p.log)
		}
		p.rate[chat] = 80
		for range 20 {
			if p.run(time.Second, time.Second); len(p.log) > 0 {
				break
			}
		}
		p.rate[chat] = 20 * 1.45
		if len(p.log) == 0 {
			t.Fatalf("%s: nothing is noticed", c.name)
		}
		got := p.log[0].Incident.Culprits
		if len(got) != 1 || got[0].Caller != "chat" || got[0].Event != c.event {
			t.Errorf("%s: named %+v, want its event %q", c.name, got, c.event)
		}
	}
}
