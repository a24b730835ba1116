package ops

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/words"
)

// History is the answer of GET /api/v1/history: one column a quantity, all of
// the same length, oldest first. T is when each step ends, in unix seconds.
// Groups and Callers are counts of publishes in the step on this replica; Used
// and Plan are of the account. Level is the highest state of the breaker in the
// step, in the order closed, shed_bulk, shed_normal, critical_only, open,
// half_open.
type History struct {
	Account string             `json:"account"`
	StepS   int64              `json:"step_s"`
	Since   int64              `json:"since"` // nothing is known before
	T       []int64            `json:"t"`
	Used    []int64            `json:"used"`
	Plan    []int64            `json:"plan"`
	Level   []int              `json:"level"`
	Groups  map[string][]int64 `json:"groups"`
	Callers []CallerHistory    `json:"callers,omitempty"`
	Events  []Event            `json:"events"`
}

// CallerHistory is one caller's part: publishes asked for and held back.
type CallerHistory struct {
	Name  string  `json:"name"`
	Asked []int64 `json:"asked"`
	Held  []int64 `json:"held"`
}

var groupNames = [groups]string{"passed", "folded", "undelivered", "limited", "shed", "failed"}

// history takes account, window (a duration, at most 24h), points (at most so
// many, 0 for all) and callers=1.
func (s *Server) history(r *http.Request) (History, error) {
	q := r.URL.Query()
	a, err := s.accountNamed(q.Get("account"))
	if err != nil {
		return History{}, err
	}
	window := 10 * time.Minute
	if v := q.Get("window"); v != "" {
		if window, err = words.ParseSpan(v); err != nil || window < time.Second || window > 24*time.Hour {
			return History{}, bad(`window must be a duration from 1s to 24h, such as "10m" or "24h"; it is %q`, v)
		}
	}
	most := 0
	if v := q.Get("points"); v != "" {
		if most, err = strconv.Atoi(v); err != nil || most < 1 {
			return History{}, bad("points must be a number above zero; it is %q", v)
		}
	}
	return s.book(a.Name).history(s.cfg.Now(), a.Name, window, most, q.Get("callers") != ""), nil
}

func (b *book) history(now time.Time, account string, window time.Duration, most int, withCallers bool) History {
	b.mu.Lock()
	defer b.mu.Unlock()
	step, points := b.window(now, window)
	merge := 1
	if all := int(window / step); most > 0 && all > most {
		merge = int(math.Ceil(float64(all) / float64(most)))
	}
	out := History{
		Account: account, StepS: int64(step/time.Second) * int64(merge),
		T: []int64{}, Used: []int64{}, Plan: []int64{}, Level: []int{}, Groups: map[string][]int64{}, Events: slices.Clone(b.events),
	}
	if all := b.coarse.since(0); len(all) > 0 {
		out.Since = all[0].at - 59
	} else if all := b.fine.since(0); len(all) > 0 {
		out.Since = all[0].at
	}
	for _, name := range groupNames {
		out.Groups[name] = []int64{}
	}
	if withCallers {
		for _, name := range b.names {
			out.Callers = append(out.Callers, CallerHistory{Name: name, Asked: []int64{}, Held: []int64{}})
		}
	}
	// Steps are cut at multiples of their length, so that they do not crawl from
	// one request to the next.
	cut := int64(-1)
	for _, p := range points {
		if at := p.at / out.StepS; at != cut {
			cut = at
			out.T = append(out.T, 0)
			out.Used, out.Plan, out.Level = append(out.Used, 0), append(out.Plan, 0), append(out.Level, 0)
			for _, name := range groupNames {
				out.Groups[name] = append(out.Groups[name], 0)
			}
			for i := range out.Callers {
				c := &out.Callers[i]
				c.Asked, c.Held = append(c.Asked, 0), append(c.Held, 0)
			}
		}
		i := len(out.T) - 1
		out.T[i], out.Used[i], out.Plan[i] = p.at, p.used, p.plan
		out.Level[i] = max(out.Level[i], int(p.level))
		for g, name := range groupNames {
			out.Groups[name][i] += p.groups[g]
		}
		for k, c := range p.callers {
			if k < len(out.Callers) {
				out.Callers[k].Asked[i] += c.asked
				out.Callers[k].Held[i] += c.held
			}
		}
	}
	return out
}
