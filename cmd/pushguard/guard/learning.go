package guard

import (
	"context"
	"sync"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/learn"
)

// learnEvery is between two turns in which an app's Learner may ask Pusher something.
const learnEvery = time.Second

// runLearn gives the apps of an account their turns until ctx ends, as the config in force allows.
func (g *Guard) runLearn(ctx context.Context, account string) {
	t := time.NewTicker(learnEvery)
	defer t.Stop()
	var turns sync.WaitGroup
	defer turns.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			a := g.fleet.Load().account(account)
			if a == nil {
				return
			}
			for _, x := range a.apps {
				switch c := learning(x.form.app.Learn); {
				case c == nil:
					x.learner.Rest("learn asks nothing: sample is false and poll is 0s")
				case g.extras.Sink:
					x.learner.Rest("nothing is sent to Pusher: --sink")
				case g.leaving.Load():
					x.learner.Rest("this replica is shutting down")
				case x.asking.CompareAndSwap(false, true): // else the last turn still waits for answers
					turns.Go(func() {
						defer x.asking.Store(false)
						x.learner.Turn(ctx, now, *c, x.App)
					})
				}
			}
		}
	}
}

func learning(c *config.Learn) *learn.Config {
	if c == nil || c.Poll <= 0 && !c.Sample {
		return nil
	}
	return &learn.Config{Poll: c.Poll, Presence: c.Presence, Sample: c.Sample, Budget: float64(c.Budget)}
}

// learned is what the apps' Learners did, by app.
func (a *account) learned() map[string]learn.Status {
	out := make(map[string]learn.Status, len(a.apps))
	for _, x := range a.apps {
		out[x.ID] = x.learner.Status()
	}
	return out
}
