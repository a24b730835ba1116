package quota

import (
	"github.com/pushguard/pushguard/quota/dedupe"
	"github.com/pushguard/pushguard/quota/delayed"
)

// Shelf is the account's queue of publishes that are sent later.
func (l *Ledger) Shelf() *delayed.Queue {
	place := delayed.Place{Known: l.st.Exclusive()}
	if l.record != nil {
		if name, err := l.record.Name(); err == nil {
			place = delayed.Place{Name: name + ".", Known: true}
		}
	}
	return delayed.New(l.st, l.cfg.Load().Account, place)
}

// Twins is the account's record of publishes, shared by its replicas.
func (l *Ledger) Twins() *dedupe.Claims { return dedupe.New(l.st, l.cfg.Load().Account, l.log) }
