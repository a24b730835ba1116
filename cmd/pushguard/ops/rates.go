package ops

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pushguard/pushguard/limiter"
)

// RateStatus is a limited key: the whole bucket, this replica's share of it, and
// the replicas that use it.
type RateStatus struct {
	Account string `json:"account"`
	App     string `json:"app"`
	// Of is whose rate it is: a rule, a caller or the app. Key is the channel,
	// event or caller that the bucket counts.
	Of   string `json:"of"`
	Rate string `json:"rate"`
	Key  string `json:"key"`
	// PerSecond and Burst are the whole. Left is how many tokens all replicas have.
	PerSecond float64 `json:"per_s"`
	Burst     int64   `json:"burst"`
	Left      float64 `json:"left"`
	// ShareLeft, SharePerSecond: what this replica holds of it. Shared: the store
	// moves shares to where they are needed; else each replica has an even part.
	ShareLeft      float64 `json:"share_left"`
	SharePerSecond float64 `json:"share_per_s"`
	Shared         bool    `json:"shared"`
	// Replicas that use a shared one, busiest first.
	Replicas []RateReplica `json:"replicas"`
}

// RateReplica is one replica's part of a bucket.
type RateReplica struct {
	Name      string  `json:"name"`
	PerSecond float64 `json:"per_s"`
	Held      float64 `json:"held"`
	Asked     float64 `json:"asked_per_s"`
}

// RatesStatus is the answer of GET /api/v1/rates.
type RatesStatus struct {
	Accounts []RatesAccount `json:"accounts"`
	// Keys that have less than half of their tokens left on this replica, those
	// with least first.
	Keys []RateStatus `json:"keys"`
}

// RatesAccount says how an account's replicas share rates.
type RatesAccount struct {
	Account  string `json:"account"`
	Replicas int    `json:"replicas"`
	// Active: this replica holds its part. Away: the store does not answer, and it
	// goes on with its last shares.
	Active    bool   `json:"active"`
	Away      bool   `json:"away"`
	Error     string `json:"error,omitempty"`
	Exchanges int64  `json:"exchanges"`
	Reports   int64  `json:"reports"`
	// Forgotten buckets had to make room before they were full again.
	Forgotten int64 `json:"forgotten"`
}

// rates lists limited keys. It takes account and limit (at most 200, as a rule 20).
func (s *Server) rates(r *http.Request) (RatesStatus, error) {
	limit := 20
	if v := r.URL.Query().Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 200 {
			return RatesStatus{}, bad("limit must be from 1 to 200; it is %q", v)
		}
		limit = n
	}
	out := RatesStatus{Accounts: []RatesAccount{}, Keys: []RateStatus{}}
	now := s.cfg.Now()
	for _, a := range s.cfg.Accounts() {
		if want := r.URL.Query().Get("account"); want != "" && want != a.Name {
			continue
		}
		out.Accounts = append(out.Accounts, ratesAccount(a))
		for _, app := range a.Apps {
			keys := app.Limiter.LimitedKeys(now, limit)
			out.Keys = append(out.Keys, s.rateRows(r.Context(), a, app.ID, keys)...)
		}
	}
	slices.SortStableFunc(out.Keys, func(a, b RateStatus) int {
		return cmp.Compare(a.Left/float64(max(a.Burst, 1)), b.Left/float64(max(b.Burst, 1)))
	})
	out.Keys = out.Keys[:min(limit, len(out.Keys))]
	return out, nil
}

func ratesAccount(a Account) RatesAccount {
	out := RatesAccount{Account: a.Name, Replicas: 1, Active: true}
	if a.Rates != nil {
		st := a.Rates.Status()
		out.Replicas, out.Active, out.Away, out.Error = max(st.Replicas, 1), st.Active, st.Away, st.Err
		out.Exchanges, out.Reports, out.Forgotten = st.Exchanges, st.Reports, st.Forgotten
	}
	return out
}

func (s *Server) rateRows(ctx context.Context, a Account, app string, keys []limiter.LimitedKey) []RateStatus {
	var ids []string
	for _, k := range keys {
		if k.Shared {
			ids = append(ids, k.ID)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	records, err := a.Ledger.RateRecords(ctx, ids)
	if err != nil {
		records = nil // what this replica knows is better than nothing
	}
	var rows []RateStatus
	for _, k := range keys {
		row := RateStatus{
			Account: a.Name, App: app, Of: k.Of, Rate: k.Rate, Key: k.Name, PerSecond: k.PerSecond, Burst: k.Burst, Left: k.Left,
			ShareLeft: k.ShareLeft, SharePerSecond: k.SharePerSecond, Shared: k.Shared, Replicas: []RateReplica{},
		}
		if rec, ok := records[k.ID]; ok {
			for _, u := range rec.Users {
				row.Replicas = append(row.Replicas, RateReplica{u.Replica, u.PerSecond, u.Held, u.Demand})
			}
			slices.SortFunc(row.Replicas, func(a, b RateReplica) int { return cmp.Compare(b.Asked, a.Asked) })
		}
		rows = append(rows, row)
	}
	return rows
}

var (
	descRateReplicas  = desc("rate_replicas", "Replicas that share the account's token buckets, this one included.", "account")
	descRateActive    = desc("rate_shares_active", "1 while this replica holds its part of the token buckets, 0 until it has heard who else there is.", "account")
	descRateAway      = desc("rate_store_away", "1 while the store does not answer and this replica keeps its last shares of token buckets.", "account")
	descRateExchanges = desc("rate_exchanges_total", "Round trips to the store to exchange shares of token buckets.", "account")
	descRateReports   = desc("rate_reports_total", "Token buckets reported to the store.", "account")
	descRateForgotten = desc("rate_forgotten_total", "Token buckets that the store evicted before they were full again.", "account")
)

func (s *Server) collectRates(gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, int64, ...string)) {
	for _, a := range s.cfg.Accounts() {
		if a.Rates == nil {
			continue
		}
		st := ratesAccount(a)
		gauge(descRateReplicas, float64(st.Replicas), a.Name)
		gauge(descRateActive, truth(st.Active), a.Name)
		gauge(descRateAway, truth(st.Away), a.Name)
		counter(descRateExchanges, st.Exchanges, a.Name)
		counter(descRateReports, st.Reports, a.Name)
		counter(descRateForgotten, st.Forgotten, a.Name)
	}
}
