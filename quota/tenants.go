package quota

import (
	"github.com/pushguard/pushguard/quota/dedupe"
	"github.com/pushguard/pushguard/quota/delayed"
)

// Shelf is the account's queue of publishes that are sent later.
func (l *Ledger) Shelf() *delayed.Queue { return delayed.New(l.st, l.cfg.Load().Account) }

// Twins is the account's record of publishes, shared by its replicas.
func (l *Ledger) Twins() *dedupe.Claims { return dedupe.New(l.st, l.cfg.Load().Account, l.log) }
