package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/guard"
	"github.com/pushguard/pushguard/cmd/pushguard/watch"
	"github.com/pushguard/pushguard/quota/store"
)

// demoReplica names the demo's guard, and so what it finds in its store.
const demoReplica = "demo"

// demoKnown is for how long the demo's guard has known the traffic when the
// bad day begins: more than a day, so that the detector knows the shape of one.
// They are lived in virtual time; nobody sees a demo that takes them.
const demoKnown = 30 * time.Hour

// liveBefore leaves in dir the store of a guard that has watched the demo's
// usual traffic, as any guard leaves it when it stops. The day that follows
// takes length.
func liveBefore(ctx context.Context, dir string, now time.Time, length time.Duration) error {
	w := watch.New(watch.Config{Account: demoAccount, Apps: []string{demoApp}})
	const step = 5 * time.Second
	scale := step.Seconds() * float64(time.Minute) / float64(length)
	owed := make([]float64, len(demoUsual))
	n := uint64(0)
	for at := now.Add(-demoKnown); at.Before(now); at = at.Add(step) {
		for i, c := range demoUsual {
			for owed[i] += c.perSecond * scale; owed[i] >= 1; owed[i]-- {
				n++
				w.Observe(at, demoApp, c.caller, c.event, []string{fmt.Sprintf(c.channel, n%40)}, n, 1+demoSubscribers)
			}
		}
		w.Tick(at)
	}
	st, err := store.Open(ctx, "embedded", store.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer st.Close()
	return st.PutBlob(ctx, demoAccount, guard.WatchBlob(demoReplica), w.Save())
}
