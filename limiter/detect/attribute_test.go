package detect_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/limiter/detect/detecttest"
	"pgregory.net/rapid"
)

func values(causes []detect.Cause) [][]int32 {
	var v [][]int32
	for _, c := range causes {
		v = append(v, c.Values)
	}
	return v
}

// The seeds here are used for nothing else, least of all for tuning. RiskLoc,
// the best of the published methods, has an F1 of 0.755 on S and 0.734 on L.
func TestAttributeOnPublishedSettings(t *testing.T) {
	for _, tc := range []struct {
		set  detecttest.Setting
		want float64
	}{{detecttest.S, 0.90}, {detecttest.L, 0.98}} {
		t.Run(tc.set.Name, func(t *testing.T) {
			t.Parallel()
			var tp, fp, fn int
			for seed := range uint64(40) {
				c := tc.set.Generate(700000 + seed)
				a, b, d := detecttest.Score(values(detect.Attribute(c.Table, detect.Options{})), c.Causes)
				tp, fp, fn = tp+a, fp+b, fn+d
			}
			f1 := 2 * float64(tp) / float64(2*tp+fp+fn)
			t.Logf("F1 %.3f: %d right, %d wrong, %d missed", f1, tp, fp, fn)
			if f1 < tc.want {
				t.Errorf("F1 = %.3f, want at least %.2f", f1, tc.want)
			}
			if fp > tp/20 {
				t.Errorf("%d of %d names are wrong", fp, tp+fp)
			}
		})
	}
}

const (
	callers  = 8
	events   = 5
	channels = 4
	other    = 0 // the payload code of all that repeats seldom
)

// minute makes one minute of counts: caller × event × channel × payload, with
// Poisson counts of what change makes of the expectation.
func minute(seed uint64, change func(caller, event, channel int32, expected float64) float64) detect.Table {
	r := rand.New(rand.NewPCG(seed, 1))
	t := detect.Table{Columns: make([][]int32, 4)}
	for c := range int32(callers) {
		for e := range int32(events) {
			for ch := range int32(channels) {
				if (c+2*e+ch)%3 == 0 {
					continue // not every caller sends every event everywhere
				}
				mean := 5 + 200*r.Float64()*r.Float64()
				add(&t, []int32{c, e, ch, other}, poisson(r, change(c, e, ch, mean)), mean)
			}
		}
	}
	return t
}

func add(t *detect.Table, leaf []int32, real, predicted float64) {
	for a, v := range leaf {
		t.Columns[a] = append(t.Columns[a], v)
	}
	t.Real, t.Predicted = append(t.Real, real), append(t.Predicted, predicted)
}

func poisson(r *rand.Rand, mean float64) float64 {
	if mean > 50 {
		return math.Round(max(0, mean+math.Sqrt(mean)*r.NormFloat64()))
	}
	n, p := 0.0, math.Exp(-mean)
	for u := r.Float64(); u > p; n++ {
		u *= r.Float64()
	}
	return n
}

func TestAttributeNamesTheCaller(t *testing.T) {
	const any = -1
	for _, tc := range []struct {
		name   string
		change func(c, e, ch int32, mean float64) float64
		extra  func(*detect.Table)
		want   [][]int32
	}{
		{name: "a healthy minute has no cause"},
		{
			name: "one caller's one event on one channel pattern",
			change: func(c, e, ch int32, mean float64) float64 {
				if c == 3 && e == 2 && ch == 1 {
					return mean * 8
				}
				return mean
			},
			want: [][]int32{{3, 2, 1, any}},
		},
		{
			name: "everything a caller sends: the caller, not its parts",
			change: func(c, e, ch int32, mean float64) float64 {
				if c == 5 {
					return mean * 3
				}
				return mean
			},
			want: [][]int32{{5, any, any, any}},
		},
		{
			name: "an event, whoever sends it",
			change: func(c, e, ch int32, mean float64) float64 {
				if e == 4 {
					return mean * 3
				}
				return mean
			},
			want: [][]int32{{any, 4, any, any}},
		},
		{
			name: "two unrelated causes",
			change: func(c, e, ch int32, mean float64) float64 {
				if c == 1 {
					return mean * 4
				}
				if e == 3 && ch == 2 {
					return mean * 6
				}
				return mean
			},
			want: [][]int32{{1, any, any, any}, {any, 3, 2, any}},
		},
		{
			name:   "everybody",
			change: func(_, _, _ int32, mean float64) float64 { return mean * 2 },
			want:   [][]int32{{any, any, any, any}},
		},
		{
			name:  "one payload over and over",
			extra: func(t *detect.Table) { add(t, []int32{2, 0, 0, 7}, 900, 0) },
			want:  [][]int32{{any, any, any, 7}},
		},
		{
			name:  "a caller nobody knew",
			extra: func(t *detect.Table) { add(t, []int32{callers, 0, 0, other}, 400, 0) },
			want:  [][]int32{{callers, any, any, any}},
		},
		{
			name:   "half of everything is missing: no excess",
			change: func(_, _, _ int32, mean float64) float64 { return mean / 2 },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for seed := range uint64(25) {
				if tc.change == nil {
					tc.change = func(_, _, _ int32, mean float64) float64 { return mean }
				}
				table := minute(seed, tc.change)
				if tc.extra != nil {
					tc.extra(&table)
				}
				got := detect.Attribute(table, detect.Options{Counts: true})
				if tp, fp, fn := detecttest.Score(values(got), tc.want); fp+fn > 0 {
					t.Errorf("seed %d: %d of %v named, and %d wrong: %+v", seed, tp, tc.want, fp, got)
				}
			}
		})
	}
}

func TestAttributeTellsTheRest(t *testing.T) {
	table := minute(1, func(_, _, _ int32, mean float64) float64 { return mean })
	add(&table, []int32{2, 1, 3, 7}, 900, 0)
	got := detect.Attribute(table, detect.Options{Counts: true})
	if len(got) != 1 || !slices.Equal(got[0].Typical, []int32{2, 1, 3, 7}) || got[0].Deviation != 900 {
		t.Fatalf("got %+v, want one cause of 900, typically all of 2 1 3 7", got)
	}
	if got[0].Share < 0.7 || got[0].Share > 1 || got[0].Confidence < 0.99 {
		t.Errorf("share %v and confidence %v of the only cause", got[0].Share, got[0].Confidence)
	}
}

// An attribute that all leaves of the cause share anyway is no part of it.
func TestAttributeIsShort(t *testing.T) {
	small := detecttest.Setting{Dims: []int{10, 8, 1}, Noise: [2]float64{0.05, 0.05}, Severity: [2]float64{0.6, 0.8}, Anomalies: [2]int{1, 1}, Elements: [2]int{1, 1}}
	for seed := range uint64(50) {
		c := small.Generate(seed)
		for _, v := range values(detect.Attribute(c.Table, detect.Options{})) {
			if v[2] >= 0 {
				t.Fatalf("seed %d: %v fixes an attribute that has one value", seed, v)
			}
		}
	}
}

func TestAttributeOfNothing(t *testing.T) {
	zeros := detect.Table{Columns: [][]int32{{0, 1, 2}, {0, 0, 1}}, Real: make([]float64, 3), Predicted: make([]float64, 3)}
	for _, table := range []detect.Table{{}, zeros, {Columns: [][]int32{{}}, Real: nil, Predicted: nil}} {
		for _, o := range []detect.Options{{}, {Counts: true}} {
			if got := detect.Attribute(table, o); len(got) != 0 {
				t.Errorf("Attribute(%v) = %v", table, got)
			}
		}
	}
}

// The names of values are arbitrary, and so is the order of leaves.
func TestAttributeIgnoresCodesAndOrder(t *testing.T) {
	small := detecttest.Setting{Dims: []int{4, 5, 3}, Noise: [2]float64{0, 0.1}, Severity: [2]float64{0.4, 1}, Anomalies: [2]int{1, 2}, Elements: [2]int{1, 2}}
	rapid.Check(t, func(rt *rapid.T) {
		c := small.Generate(rapid.Uint64().Draw(rt, "seed"))
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "order"), 0))
		rows := r.Perm(len(c.Table.Real))
		moved := detect.Table{Columns: make([][]int32, len(c.Table.Columns))}
		codes := make([][]int, len(small.Dims))
		for a, n := range small.Dims {
			codes[a] = r.Perm(2 * n)
		}
		for _, i := range rows {
			leaf := make([]int32, len(codes))
			for a := range leaf {
				leaf[a] = int32(codes[a][c.Table.Columns[a][i]])
			}
			add(&moved, leaf, c.Table.Real[i], c.Table.Predicted[i])
		}
		var want []string
		for _, v := range values(detect.Attribute(c.Table, detect.Options{})) {
			for a := range v {
				if v[a] >= 0 {
					v[a] = int32(codes[a][v[a]])
				}
			}
			want = append(want, fmt.Sprint(v))
		}
		var got []string
		for _, v := range values(detect.Attribute(moved, detect.Options{})) {
			got = append(got, fmt.Sprint(v))
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			rt.Fatalf("renamed and shuffled: %v, before: %v", got, want)
		}
	})
}

func BenchmarkAttribute(b *testing.B) {
	for _, set := range []detecttest.Setting{detecttest.S, detecttest.L} {
		c := set.Generate(1)
		b.Run(set.Name, func(b *testing.B) {
			for b.Loop() {
				detect.Attribute(c.Table, detect.Options{})
			}
		})
	}
}
