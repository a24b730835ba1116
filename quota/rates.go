package quota

import (
	"context"

	"github.com/pushguard/pushguard/quota/rates"
	"github.com/pushguard/pushguard/quota/store"
)

// Rates are the account's shares of token buckets, on this replica. replicas is the number of replicas by config, 0 where
// it is not given. Run must run for it.
func (l *Ledger) Rates(replicas int) *rates.Shares {
	return rates.New(&rateStore{l.st, l.cfg.Load().Account}, l.replica+"/"+l.inc, l.replica, replicas, l.log)
}

// rateStore has the store speak the words of package rates, which does not know it.
type rateStore struct {
	st      *store.Store
	account string
}

func (r *rateStore) Exclusive() bool { return r.st.Exclusive() }

func (r *rateStore) RateIDs(ctx context.Context, most int) ([]string, error) {
	return r.st.RateIDs(ctx, r.account, most)
}

func (r *rateStore) Rates(ctx context.Context, x *rates.Exchange) (*rates.Answer, error) {
	in := store.RateExchange{Account: r.account, Replica: x.Replica, Name: x.Name, Now: x.Now, Seq: x.Seq, Version: x.Version, News: x.News,
		TTL: rates.TTL, Most: store.RatesMost, Leave: x.Leave, Reports: make([]store.RateReport, len(x.Reports))}
	for i := range x.Reports {
		in.Reports[i] = store.RateReport(x.Reports[i])
	}
	out, err := r.st.Rates(ctx, &in)
	if err != nil {
		return nil, err
	}
	a := &rates.Answer{State: out.State, Replicas: out.Replicas, Rank: out.Rank, Version: out.Version, Acked: out.Acked,
		News: out.News, Missed: out.Missed, Forgotten: out.Forgotten, Told: out.Told, Grants: make([]rates.Grant, len(out.Grants))}
	for i := range out.Grants {
		a.Grants[i] = rates.Grant(out.Grants[i])
	}
	return a, nil
}

// RateRecords are buckets as the store has them, by ID.
func (l *Ledger) RateRecords(ctx context.Context, ids []string) (map[string]store.RateRecord, error) {
	return l.st.RateRecords(ctx, l.cfg.Load().Account, ids)
}
