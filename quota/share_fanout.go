package quota

import (
	"context"
	"github.com/pushguard/pushguard/quota/fanout"
	"time"
)

// fanoutEvery is between two exchanges of learned subscriber counts. That a channel is no longer empty is known on the
// other replicas so much later, and a publish that a rule skips meanwhile reaches nobody: so it is short.
const fanoutEvery = time.Second

// distrustAfter exchanges in a row that failed nothing is known to be empty any more: others may have heard otherwise.
const distrustAfter = 3

// learnedTopic tells the form of the messages: releases before it had one of minutes under the app's bare name.
const learnedTopic = "2/"

type sharedFanout struct {
	f      *fanout.Table
	after  int64
	failed int // exchanges in a row
}

// ShareFanout lets the replicas tell each other what f learns, from Run; name is the same on all of them (the app's).
// With the embedded store there is nobody to tell.
func (l *Ledger) ShareFanout(name string, f *fanout.Table) {
	l.fanouts.Store(name, &sharedFanout{f: f})
}

func (l *Ledger) shareFanouts(ctx context.Context) {
	tick := time.NewTicker(fanoutEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.shareLearned(ctx, l.now())
		}
	}
}

// shareLearned does one exchange. What cannot be told because the store is away is lost to the others: they learn it
// by themselves, or count as configured.
func (l *Ledger) shareLearned(ctx context.Context, now time.Time) {
	l.fanouts.Range(func(name, value any) bool {
		s := value.(*sharedFanout)
		s.f.Tick(now)
		if l.st.Exclusive() {
			return true
		}
		newest, msgs, err := l.st.ShareLearned(ctx, l.cfg.Load().Account, learnedTopic+name.(string), s.after, s.f.Fresh())
		if err != nil {
			if s.failed++; s.failed >= distrustAfter {
				s.f.Distrust(now)
			}
			return true
		}
		s.failed = 0
		if s.after > 0 && newest-s.after > int64(len(msgs)) {
			s.f.Distrust(now) // some messages went before this replica read them
		}
		for _, m := range msgs {
			s.f.Merge(m)
		}
		s.after = newest
		return true
	})
}
