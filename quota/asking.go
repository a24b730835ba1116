package quota

import (
	"context"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// pollClaim is how long one replica may take to poll before another may.
const pollClaim = time.Minute

// MayAsk counts cost messages of questions to Pusher that nobody but the guard itself wants answered, over all
// replicas of the app; false: they would be more than most today, UTC. What is counted is not given back, so a question
// that fails counts too. The plan is another matter: Reserve.
func (l *Ledger) MayAsk(ctx context.Context, now time.Time, app string, cost, most int64) (ok bool, spent int64, err error) {
	return l.st.PayAsk(ctx, l.asking(now, app, cost, most))
}

// MayPoll makes this replica the one that asks for the list of occupied channels, which costs as MayAsk does, when that
// is due: last is when the newest list was asked for, by whichever replica. Whoever polls says so with Polled; who does
// not within a minute has lost the turn.
func (l *Ledger) MayPoll(ctx context.Context, now time.Time, app string, every time.Duration, cost, most int64) (mine bool, spent int64, last time.Time, err error) {
	return l.st.ClaimPoll(ctx, l.asking(now, app, cost, most), every, pollClaim, l.replica)
}

// Polled gives the others what LearnOccupied returned for a list that was asked for at asked. With the embedded store
// there are none.
func (l *Ledger) Polled(ctx context.Context, now time.Time, app string, asked time.Time, list []byte) error {
	if l.st.Exclusive() {
		list = nil
	}
	return l.st.PutPoll(ctx, l.cfg.Load().Account, app, now, asked, list)
}

// LastPoll is what another replica gave to Polled, for MergeOccupied; nil: nothing in the last hour.
func (l *Ledger) LastPoll(ctx context.Context, app string) ([]byte, error) {
	return l.st.LastPoll(ctx, l.cfg.Load().Account, app)
}

func (l *Ledger) asking(now time.Time, app string, cost, most int64) store.Asking {
	return store.Asking{Account: l.cfg.Load().Account, App: app, Now: now, Day: int32(DayOf(now)), Cost: cost, Most: most}
}
