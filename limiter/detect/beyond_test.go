package detect

import "testing"

// What a burst leaves of a window of eight seconds, and what a rise leaves.
func TestBeyondTheBurst(t *testing.T) {
	for _, tc := range []struct {
		name  string
		k     int
		each  float64 // expected of a part
		part  [parts]uint32
		alarm bool
	}{
		{"usual", 0, 10, [parts]uint32{9, 11, 10, 12, 8, 10, 9, 11}, false},
		{"five seconds six times as high", 0, 10, [parts]uint32{10, 60, 60, 60, 60, 60, 9, 11}, false},
		{"and chance lifts the one beside", 0, 10, [parts]uint32{10, 18, 60, 60, 60, 60, 60, 11}, false},
		{"five seconds of few messages, and chance", 0, 2, [parts]uint32{2, 12, 11, 13, 12, 12, 5, 4}, false},
		{"three times as high for six seconds", 0, 20, [parts]uint32{20, 19, 60, 61, 59, 60, 62, 58}, true},
		{"three times as high for eight, of few messages", 0, 4, [parts]uint32{12, 13, 11, 12, 14, 12, 11, 12}, true},
		{"a burst at the turn of two parts", 1, 40, [parts]uint32{40, 41, 140, 190, 39, 40, 42, 38}, false},
		{"three times as high for half a minute", 1, 40, [parts]uint32{40, 120, 121, 119, 120, 118, 122, 120}, true},
	} {
		win := window{part: tc.part, at: parts - 1}
		s, _ := win.beyond(tc.k, tc.each, priorDispersion, 0.015)
		if got := s >= beyondBurst; got != tc.alarm {
			t.Errorf("%s: %.1f nats beyond the burst, want at least %d: %v", tc.name, s, beyondBurst, tc.alarm)
		}
	}
}

// A burst of a minute stays below the mark, and chance lifts eight seconds of it
// above: that is no rise of three times.
func TestChanceLiftsABurstOfAMinute(t *testing.T) {
	for _, tc := range []struct {
		name  string
		part  [parts]uint32
		alarm bool
	}{
		{"×1.8 and chance", [parts]uint32{17, 20, 18, 18, 12, 15, 16, 26}, false},
		{"×3", [parts]uint32{24, 26, 23, 25, 22, 27, 24, 25}, true},
	} {
		w := watch{learned: 10000, shape: &shape{}}
		w.init()
		for k := range w.window {
			w.window[k].tops, w.window[k].samples = [topDays]float32{0, 1.1, 1.1}, 64
		}
		win := &w.window[0]
		win.part, win.at = tc.part, parts-1
		for _, n := range tc.part {
			win.sum += n
		}
		if v := w.excessTest(0, 65.5, 0, 0); v.alarm != tc.alarm {
			t.Errorf("%s: alarm %v at ×%.2f and %.1f nats", tc.name, v.alarm, v.ratio, v.surprise)
		}
	}
}
