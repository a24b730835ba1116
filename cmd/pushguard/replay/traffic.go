package replay

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/quota/fanout"
)

// publish is one publish of the traffic. It is borrowed until the next one.
type publish struct {
	at       time.Time
	caller   string
	event    string
	channels []string
	digest   [2]uint64
	size     int
	cost     int64
	incident bool
	stream   *stream // nil in a trace
}

// stream is a Stream ready to draw from.
type stream struct {
	*Stream
	rng      *rand.Rand
	channels [][]string
	cost     []int64 // by channel
	salt     uint64
	sent     uint64
	pattern  string // of the channel, as the detector folds it
	now      float64
}

// generator draws the publishes of one second after another. Of a second it
// draws how many each stream has (Poisson), puts them in a random order and
// spreads them evenly: within a second nothing looks closer.
type generator struct {
	streams []*stream
	rng     *rand.Rand
	order   []*stream
}

func newGenerator(s *Scenario, seed uint64, fanout *fanout.Table, billing pusher.Billing) *generator {
	g := &generator{rng: rand.New(rand.NewPCG(seed, 0))}
	for i := range s.Traffic {
		t := &s.Traffic[i]
		st := &stream{Stream: t, rng: rand.New(rand.NewPCG(seed, uint64(i)+1)), salt: mix(uint64(i) + 1)}
		for j := range t.Channel.names {
			names := t.Channel.names[j : j+1 : j+1]
			st.channels = append(st.channels, names)
			st.cost = append(st.cost, billing.Cost(pusher.Shape{Events: 1, Channels: 1, Deliveries: fanout.Estimate(names[0])}))
		}
		st.pattern = string(detect.Fold(nil, t.Channel.names[0]))
		g.streams = append(g.streams, st)
	}
	return g
}

// rateAt is the expected publishes a second.
func (st *stream) rateAt(t time.Time) float64 {
	if t.Before(time.Time(st.From)) || !t.Before(time.Time(st.Until)) {
		return 0
	}
	return float64(st.Rate) * st.Shape.factor(t, time.Time(st.From))
}

// second draws the publishes of the second that begins at t and gives them to
// each in the order of time.
func (g *generator) second(t time.Time, each func(*publish) error) error {
	g.order = g.order[:0]
	for _, st := range g.streams {
		if st.now = st.rateAt(t); st.now <= 0 {
			continue
		}
		for range min(poisson(st.rng, st.now), maxPerSecond) {
			g.order = append(g.order, st)
		}
	}
	g.rng.Shuffle(len(g.order), func(i, j int) { g.order[i], g.order[j] = g.order[j], g.order[i] })
	var p publish
	step := time.Second / time.Duration(len(g.order)+1)
	for i, st := range g.order {
		ch := 0
		if len(st.channels) > 1 {
			ch = st.rng.IntN(len(st.channels))
		}
		st.sent++
		which := st.sent
		if st.Payload != fresh {
			which %= uint64(st.Payload)
		}
		h := mix(st.salt ^ which*0x9e3779b97f4a7c15)
		p = publish{
			at: t.Add(time.Duration(i) * step), caller: st.Caller, event: st.Event, channels: st.channels[ch],
			digest: [2]uint64{h | 1, mix(h) | 1}, size: st.Size, cost: st.cost[ch], incident: st.Incident, stream: st,
		}
		if err := each(&p); err != nil {
			return err
		}
	}
	return nil
}

// maxPerSecond keeps a shape that doubles for ever from taking all memory.
const maxPerSecond = 2_000_000

// poisson draws from the Poisson distribution: by Knuth's method, and by its
// normal approximation where the mean is large.
func poisson(r *rand.Rand, mean float64) int {
	if mean > 50 {
		return max(int(math.Round(mean+math.Sqrt(mean)*r.NormFloat64())), 0)
	}
	limit, p, n := math.Exp(-mean), r.Float64(), 0
	for p > limit {
		p *= r.Float64()
		n++
	}
	return n
}

// mix spreads the bits (the finalizer of MurmurHash3).
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
