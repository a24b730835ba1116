package detect

import (
	"cmp"
	"slices"
)

// PayloadCount is how often one replica saw a payload under a combination in
// the last minute: Count, and at most Error less.
type PayloadCount struct {
	Caller, Event, Channel string
	Digest                 uint64
	Count, Error           uint32
}

// What replicas tell each other of payloads: the heaviest, as they stand. A list
// replaces the one before, so a lost one loses nothing.
const (
	maxSharedPayloads = 64
	maxElsewhere      = 256 // replicas
	// leastShared is the count from which a payload is told: sixteen make a
	// heavy one, and they may lie with several replicas.
	leastShared      = 4
	elsewhereSeconds = 10 // how long a list is news
)

// elsewhere is what another replica counted last.
type elsewhere struct {
	at   int64
	list []PayloadCount
}

// ExportPayloads lists the payloads that were seen here most often in the last
// minute, for the other replicas' ImportPayloads: at most 64, the surest first.
func (d *Detector) ExportPayloads() []PayloadCount {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.rates.all()
	local := d.payloads.list(leastShared, d.fading())
	slices.SortFunc(local, func(a, b heavy) int {
		return cmp.Or(cmp.Compare(b.count-b.error, a.count-a.error), cmp.Compare(a.digest, b.digest))
	})
	out := make([]PayloadCount, 0, min(len(local), maxSharedPayloads))
	for _, h := range local {
		if len(out) == maxSharedPayloads || h.count-h.error < leastShared {
			break
		}
		if int(h.series) < len(list) {
			s := list[h.series]
			out = append(out, PayloadCount{s.caller, s.event, s.channel, h.digest, h.count, h.error})
		}
	}
	return out
}

// ImportPayloads takes what the replica named from exported, in place of what it
// said before. Beyond 64 payloads, or 256 replicas, nothing is taken.
func (d *Detector) ImportPayloads(from string, list []PayloadCount) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.elsewhere == nil {
		d.elsewhere = map[string]elsewhere{}
	}
	if _, known := d.elsewhere[from]; !known && len(d.elsewhere) >= maxElsewhere {
		for name, e := range d.elsewhere {
			if d.now-e.at > elsewhereSeconds {
				delete(d.elsewhere, name)
			}
		}
		if len(d.elsewhere) >= maxElsewhere {
			return
		}
	}
	list = slices.Clone(list[:min(len(list), maxSharedPayloads)])
	for i := range list {
		list[i].Error = min(list[i].Error, list[i].Count)
	}
	d.elsewhere[from] = elsewhere{d.now, list}
}

// fading is the part of the payloads' last generation that is of the last minute.
func (d *Detector) fading() float64 { return 1 - float64(d.now%60)/60 }

// allPayloads are those counted here and those that other replicas told of;
// shared reports whether any did. d.mu is held.
func (d *Detector) allPayloads() (all []heavy, shared bool) {
	all = d.payloads.list(1, d.fading())
	type place struct {
		digest uint64
		series int32
	}
	var at map[place]int
	for _, e := range d.elsewhere {
		if d.now-e.at > elsewhereSeconds {
			continue
		}
		shared = true
		if at == nil && len(e.list) > 0 {
			at = make(map[place]int, len(all))
			for i, h := range all {
				at[place{h.digest, h.series}] = i
			}
		}
		for _, p := range e.list {
			s := d.rates.find(&Key{Caller: p.Caller, Event: p.Event, Channel: p.Channel})
			k := place{p.Digest, s.id}
			i, known := at[k]
			if !known {
				i = len(all)
				at[k] = i
				all = append(all, heavy{digest: p.Digest, series: s.id})
			}
			all[i].count += p.Count
			all[i].error += p.Error
		}
	}
	return all, shared
}
