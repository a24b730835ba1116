package detect_test

import (
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/limiter/detect/detecttest"
)

// named is how long after now the caller is named, as long as it sends so much.
func (p *plant) named(k detect.Key, rate float64, within time.Duration) (time.Duration, bool) {
	p.log, p.rate[k] = nil, rate
	from := p.now
	for p.now.Sub(from) < within {
		for _, e := range p.run(time.Second, time.Second).log {
			for _, c := range e.Incident.Culprits {
				if e.Phase != detect.Resolved && c.Caller == k.Caller {
					return p.now.Sub(from), true
				}
			}
		}
	}
	return within, false
}

// A caller that has done a third less than its week for a while is at twice its
// week when it does three times what it did, and is named as soon as another.
func TestWhatACallerDidLatelyIsWhatItsRiseIsMeasuredBy(t *testing.T) {
	for _, lately := range []float64{1, 0.67} {
		p := week(t)
		p.rate[orders] *= lately
		p.run(30*time.Minute, 15*time.Second).run(time.Minute, time.Second)
		if after, ok := p.named(orders, 3*p.rate[orders], time.Minute); !ok || after > 9*time.Second {
			t.Errorf("×3 of %.2f of the week: named %v after %v", lately, ok, after)
		}
	}
}

// A deploy of a caller that is busier than its week is none either: what counts
// is what it sends since it fell silent.
func TestDeployOfABusyCaller(t *testing.T) {
	for _, busy := range []float64{1, 1.12, 0.9} {
		p := week(t)
		p.rate[badge] *= busy
		p.run(30*time.Minute, 15*time.Second).run(time.Minute, time.Second)
		usual := p.rate[badge]
		for _, part := range []struct {
			factor float64
			long   time.Duration
		}{{0, 15 * time.Second}, {2.5, 10 * time.Second}, {1, 3 * time.Minute}} {
			p.rate[badge] = part.factor * usual
			p.run(part.long, time.Second)
		}
		if len(p.log) > 0 {
			t.Errorf("of a caller at %.2f of its week: %+v", busy, p.log)
		}
	}
}

// Who was silent for minutes, and then catches up for minutes, is measured by its
// week, not by the silence.
func TestOutageIsNotWhatACallerDidLately(t *testing.T) {
	p := week(t)
	usual := p.rate[badge]
	for _, factor := range []float64{0, 1.6, 1} {
		p.rate[badge] = factor * usual
		p.run(5*time.Minute, time.Second)
	}
	if len(p.log) > 0 {
		t.Errorf("%+v", p.log)
	}
}

// Half more from one minute to the next is told by the hour before, not by the
// two hours after.
func TestHalfMoreIsNamedWithinAQuarterOfAnHour(t *testing.T) {
	p := week(t)
	p.run(2*time.Hour, 15*time.Second)
	if after, ok := p.named(orders, 1.55*p.rate[orders], time.Hour); !ok || after > 15*time.Minute {
		t.Errorf("named %v after %v", ok, after)
	}
}

// Healthy mornings by the second, as a guard ticks: in them are bursts of five
// seconds with chance beside them, and deploys. Each of these accounts had incidents
// while the shortest window asked for six seconds of eight and no more.
func TestGeneratedHealthyMornings(t *testing.T) {
	for _, seed := range []uint64{900014, 900015, 900028, 900036} {
		a := detecttest.NewAccount(seed, 6)
		d := detect.New(detect.Config{})
		step, opened := int64(60), 0
		for now := monday.Unix(); now < monday.Unix()+2*86400+12*3600; now += step {
			if now == monday.Unix()+2*86400+8*3600 {
				step = 1
			}
			a.Step(now, step, func(leaf int, n int64) { d.Observe(&a.Leaves[leaf].Key, uint32(n)) })
			for _, e := range d.Tick(time.Unix(now, 0)) {
				if e.Phase == detect.Opened && step == 1 {
					opened++
					t.Logf("seed %d, second %d of the day: %+v", seed, now%86400, e.Incident)
				}
			}
		}
		if opened > 0 {
			t.Errorf("seed %d: %d incidents in four healthy hours", seed, opened)
		}
	}
}
