package quota

import (
	"context"
	"errors"
	"fmt"

	"github.com/pushguard/pushguard/quota/store"
)

// ErrHereAlone says that the store is out of reach and that this replica obeys the brake all the same; the others
// hear of it when the store is back.
var ErrHereAlone = errors.New("this replica obeys at once, the others when the store is back; until then order each by itself")

// owedBrake is a brake, or with an empty text the end of one, that the store has not heard of.
type owedBrake struct {
	text  string
	audit *store.AuditEntry
}

// brakeHere has this replica obey the brakes of text where the store is out of reach: a brake is for the worst day,
// which may be the store's as well. Until it is told, what the store holds does not count. It is forgotten if the process
// ends before that. why is what the lever met.
func (l *Ledger) brakeHere(ctx context.Context, text string, audit *store.AuditEntry, why error) error {
	if l.view.Load().up || l.closed.Load() {
		return why
	}
	b, aims, err := parseBrake(text)
	if err != nil {
		return errors.Join(why, err)
	}
	// At once: an exchange that hangs holds up what belongs to it for seconds.
	l.brake.Store(b)
	l.aims.Store(aims)
	err = l.exclusive(context.WithoutCancel(ctx), func(context.Context) error {
		l.owed = &owedBrake{text, audit}
		l.setBrake(text)
		return nil
	})
	if err != nil {
		return errors.Join(why, err)
	}
	return fmt.Errorf("%w (%w)", ErrHereAlone, why)
}

// sayBrake tells the store of a brake that it could not be told of. It belongs to the flight.
func (l *Ledger) sayBrake(ctx context.Context, b *book) error {
	o := l.owed
	if o == nil {
		return nil
	}
	at := store.At{Account: l.cfg.Load().Account, Epoch: b.epoch, Day: int32(b.day)}
	if err := l.st.SetBrake(ctx, at, o.text, o.audit); err != nil {
		return err
	}
	l.owed = nil
	return nil
}
