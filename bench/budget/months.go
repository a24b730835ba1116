package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/forecast"
)

// month is what became of a generated month's publishes.
type month struct {
	asked, refused [quota.Priorities]int64
	over           int64   // of bulk that had to be refused, because the day's demand was more than the plan
	least          float64 // part of the plan that was used on the emptiest day whose demand was more
	moves          int     // changes of the breaker's level
}

// months prints what the quota breaker refuses of an account whose demand is a little less, and a little more, than its
// plan: 10 % critical, 50 % normal, 40 % bulk, day and night, weekends, noise. By forecast and by marks.
func months(out io.Writer, days int) error {
	fmt.Fprintf(out, "a plan of 200,000 a day, %d days, the first two (no profile yet) left out\n", days)
	fmt.Fprintf(out, "  %-8s %-10s %12s %12s %12s %14s %12s %8s\n", "demand", "protect", "bulk", "normal", "critical", "bulk that must", "least used", "moves")
	var missed []error
	for _, demand := range []float64{0.95, 1.05} {
		for _, marks := range []bool{false, true} {
			m, err := runMonth(demand, marks, days)
			if err != nil {
				return err
			}
			name := "forecast"
			if marks {
				name = "marks"
			}
			part := func(p quota.Priority) string {
				return fmt.Sprintf("%.2f %%", 100*float64(m.refused[p])/float64(m.asked[p]))
			}
			fmt.Fprintf(out, "  %6.0f %% %-10s %12s %12s %12s %12.2f %% %10.1f %% %8d\n", demand*100, name, part(quota.Bulk), part(quota.Normal), part(quota.Critical),
				100*float64(m.over)/float64(m.asked[quota.Bulk]), 100*m.least, m.moves)
			if marks {
				continue
			}
			switch {
			case m.refused[quota.Critical] > 0 || m.refused[quota.Normal] > 0:
				missed = append(missed, fmt.Errorf("at %.0f %% demand normal or critical publishes were refused", demand*100))
			case demand < 1 && m.refused[quota.Bulk] > 0:
				missed = append(missed, fmt.Errorf("at %.0f %% demand bulk was refused for nothing", demand*100))
			case demand > 1 && float64(m.refused[quota.Bulk]) > 1.25*float64(m.over):
				missed = append(missed, fmt.Errorf("at %.0f %% demand more than a quarter more bulk was refused than had to be", demand*100))
			case demand > 1 && m.least < 0.98:
				missed = append(missed, fmt.Errorf("at %.0f %% demand a day ended at %.1f %%", demand*100, m.least*100))
			}
		}
	}
	return errors.Join(missed...)
}

var dbg = false

func runMonth(demand float64, marks bool, days int) (m month, err error) {
	const plan = 200_000
	first := time.Date(2026, 5, 11, 0, 0, 0, 0, time.UTC)
	m.least = 1
	moves := 0
	b, err := limiter.NewBreaker(first, limiter.BreakerConfig{ByMarks: marks}, func(t limiter.Transition) {
		moves++
		if dbg {
			fmt.Println(t.At.Format("02 15:04:05"), t.From, t.To, t.Reason)
		}
	})
	if err != nil {
		return m, err
	}
	rng := rand.New(rand.NewPCG(uint64(demand*1000), 17))
	all, above, aboveNormal := forecast.New(), forecast.New(), forecast.New()
	mix := [quota.Priorities]float64{quota.Bulk: 0.4, quota.Normal: 0.5, quota.Critical: 0.1}
	for d := range days {
		start := first.AddDate(0, 0, d)
		level := demand
		if w := start.Weekday(); w == time.Saturday || w == time.Sunday {
			level *= 0.7
		}
		var minutes [1440]float64
		sum, noise := 0.0, 0.0
		for i := range minutes {
			noise = noise*0.98 + rng.NormFloat64()*0.04
			minutes[i] = (0.15 + math.Pow(math.Max(0, math.Cos((float64(i)/60-14)/24*2*math.Pi)), 2)) * math.Exp(noise)
			sum += minutes[i]
		}
		var used, spent [quota.Priorities]int64
		var total, asked, refused int64
		var owed [quota.Priorities]float64
		if d == 2 {
			m.asked, m.refused, moves = [3]int64{}, [3]int64{}, 0
			m.over, m.least = 0, 1
		}
		for i := range minutes {
			for s := range 6 { // ten seconds
				now := start.Add(time.Duration(i)*time.Minute + time.Duration(s)*10*time.Second)
				all.Observe(now, total)
				above.Observe(now, spent[quota.Normal]+spent[quota.Critical])
				aboveNormal.Observe(now, spent[quota.Critical])
				if s == 0 && above.Known() >= 22 {
					const none = 1 << 60
					b.Protect(&limiter.Needs{AboveBulk: above.At(now, 0, none).High, AboveNormal: aboveNormal.At(now, 0, none).High})
				}
				b.ObserveBurn(now, total, total, plan, func() forecast.Forecast { return all.At(now, total, plan) })
				for p := range mix {
					owed[p] += minutes[i] / sum * level * plan * mix[p] / 6
					for ; owed[p] >= 2; owed[p] -= 2 { // a publish to one subscriber
						asked += 2
						m.asked[p] += 2
						if ok, _ := b.Allow(now, quota.Priority(p), total, plan); ok && total+2 <= plan {
							total += 2
							used[p] += 2
							spent[p] += 2
						} else {
							refused += 2
							m.refused[p] += 2
						}
					}
				}
			}
		}
		m.over += max(asked-plan, 0)
		if asked > plan {
			m.least = min(m.least, float64(total)/plan)
		}
	}
	m.moves = moves
	return m, nil
}
