package proxy

import (
	"sort"
	"sync"
	"sync/atomic"
)

// maxOrigins bounds how many callers without a key of their own are told
// apart, by app. Further ones are counted together, as the origin "other":
// whoever holds the app's pair can send any SDK header, and must not be able to
// grow this table.
const maxOrigins = 256

// Origin is one sender among those who share the app's own pair.
type Origin struct {
	// Name is the SDK as it calls itself and the peer's address:
	// "pusher-http-node 5.3.4 from 10.0.0.7". It is a hint, not a proof: only a
	// key of its own proves a caller.
	Name string
	// Publishes counts events asked for, passed on or not.
	Publishes int64
}

type origin struct {
	name      string
	publishes atomic.Int64
}

// origins is a bounded set, read without a lock by replacing the map whole
// when a new name appears.
type origins struct {
	m     atomic.Pointer[map[string]*origin]
	mu    sync.Mutex
	other origin
}

func (o *origins) of(key []byte) *origin {
	if m := o.m.Load(); m != nil {
		if found := (*m)[string(key)]; found != nil {
			return found
		}
		if len(*m) >= maxOrigins {
			return &o.other
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var old map[string]*origin
	if m := o.m.Load(); m != nil {
		old = *m
	}
	if found := old[string(key)]; found != nil {
		return found
	}
	if len(old) >= maxOrigins {
		return &o.other
	}
	next := make(map[string]*origin, len(old)+1)
	for k, v := range old {
		next[k] = v
	}
	added := &origin{name: string(key)}
	next[added.name] = added
	o.m.Store(&next)
	return added
}

func (o *origins) list() []Origin {
	var all []Origin
	if m := o.m.Load(); m != nil {
		for _, v := range *m {
			all = append(all, Origin{Name: v.name, Publishes: v.publishes.Load()})
		}
	}
	if n := o.other.publishes.Load(); n > 0 {
		all = append(all, Origin{Name: "other", Publishes: n})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Publishes > all[j].Publishes })
	return all
}
