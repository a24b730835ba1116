package guard

import (
	"context"
	"fmt"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/alert"
	"github.com/pushguard/pushguard/cmd/pushguard/ops"
	"github.com/pushguard/pushguard/limiter"
)

const (
	billEvery = time.Second
	// hearEvery is between two looks at what other replicas learned of the bill.
	hearEvery = 10 * time.Second
	// needsEvery is between two forecasts of what the rest of the day needs.
	needsEvery = 2 * time.Second
	// guessedMuch is the part of the last ten minutes' messages that may be priced by a default before somebody is told,
	// and guessedFor how long it must have been so.
	guessedMuch = 0.5
	guessedFor  = 10 * time.Minute
)

// runBill keeps an account's count near Pusher's until ctx ends: it takes over what replicas learned of it, applies what
// Pusher's refusals showed, tells the breaker what the rest of the day needs, and tells people how much is a guess.
func (g *Guard) runBill(ctx context.Context, name string) {
	t := time.NewTicker(billEvery)
	defer t.Stop()
	b := bill{g: g}
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			a := g.fleet.Load().account(name)
			if a == nil {
				return
			}
			b.look(ctx, now, a)
		}
	}
}

// bill is what runBill remembers between two looks.
type bill struct {
	g                  *Guard
	heard, needed      time.Time
	guessedSince, told time.Time // told: the alert that is open
	refusalToldOf      time.Time
	logged             string
}

func (b *bill) look(ctx context.Context, now time.Time, a *account) {
	if now.Sub(b.heard) >= hearEvery {
		b.heard = now
		hear, cancel := context.WithTimeout(ctx, 5*time.Second)
		if err := a.Ledger.Hear(hear); err != nil {
			b.g.log.Debug("what other replicas learned of the bill is not known", "account", a.Name, "err", err)
		}
		cancel()
	}
	if a.Ledger.ExhaustedOn(now) {
		a.Breaker.Confirm(now)
	}
	if now.Sub(b.needed) >= needsEvery {
		b.needed = now
		if above, aboveNormal, known := a.Ledger.Needs(now); known {
			a.Breaker.Protect(&limiter.Needs{AboveBulk: above, AboveNormal: aboveNormal})
		} else {
			a.Breaker.Protect(nil)
		}
		used, plan := a.Ledger.Used(now)
		a.Breaker.Update(now, used, plan)
	}
	short := a.Ledger.LastShortfall()
	if short.Scale > 1 {
		for _, x := range a.apps {
			if x.Fanout.Scaled() != short.Scale {
				x.Fanout.Scale(short.Scale)
			}
		}
	}
	if short.At.After(b.refusalToldOf) && now.Sub(short.At) < time.Hour && short.Counted < short.Plan {
		b.refusalToldOf = short.At
		b.g.tell(alert.OfShortfall(a.Name, short))
	}
	b.guess(now, a)
}

// guess tells when much of what is counted has been a guess for long, and when it is none any more.
func (b *bill) guess(now time.Time, a *account) {
	is := ops.BillOf(now, b.opsAccount(a))
	if is.Note != b.logged {
		// The first minutes after a start are not worth a line: nothing was asked yet.
		if is.Note != "" && is.Guessed10m >= guessedMuch {
			b.g.log.Warn("the count of messages is partly a guess", "account", a.Name, "why", is.Note)
			b.logged = is.Note
		} else if is.Note == "" && b.logged != "" {
			b.g.log.Info("numbers of subscribers are learned: the count of messages is no guess any more", "account", a.Name)
			b.logged = ""
		}
	}
	switch much := is.Guessed10m > guessedMuch; {
	case !much:
		b.guessedSince = time.Time{}
		if !b.told.IsZero() {
			b.g.tell(alert.OfGuess(a.Name, b.told, now, is.Guessed10m, "", true))
			b.told = time.Time{}
		}
	case b.guessedSince.IsZero():
		b.guessedSince = now
	case b.told.IsZero() && now.Sub(b.guessedSince) >= guessedFor:
		b.told = now
		b.g.tell(alert.OfGuess(a.Name, b.told, now, is.Guessed10m, is.Note, false))
	}
}

func (b *bill) opsAccount(a *account) ops.Account {
	x := a.Account
	x.Learned = a.learned
	return x
}

// billState tells, for /readyz, how much of the count is a guess. It costs no readiness.
func (g *Guard) billState() string {
	var notes string
	now := time.Now()
	for _, a := range g.accounts() {
		is := ops.BillOf(now, a)
		if notes != "" {
			notes += "; "
		}
		notes += fmt.Sprintf("account %s: %.0f %% of the last ten minutes' messages are priced by a default", a.Name, 100*is.Guessed10m)
		if is.Note != "" {
			notes += ". " + is.Note
		}
	}
	return notes
}
