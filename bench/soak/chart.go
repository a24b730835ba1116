package main

import (
	"bytes"
	"fmt"
	"math"
	"time"
)

// The chart: one panel for each measure and one for answers a second, over the
// same time, with the faults as bands behind. Plain SVG that needs no script and
// reads on light and dark pages alike.
const (
	chartWide = 960
	panelHigh = 120
	panelGap  = 44
	leftEdge  = 70
	rightEdge = 20
	topEdge   = 60
)

var bandColours = map[string]string{
	"Pusher answers 503": "#d62728", "Pusher does not answer": "#ff7f0e", "the store hangs": "#9467bd", "reload": "#2ca02c", "a broken config": "#8c564b",
}

func (s *soak) chart() []byte {
	var b bytes.Buffer
	panels := make([]struct {
		name   string
		values []float64
	}, 0, len(measures)+1)
	for _, m := range measures {
		values := make([]float64, len(s.samples))
		for i, one := range s.samples {
			values[i] = m.of(one)
		}
		panels = append(panels, struct {
			name   string
			values []float64
		}{m.name, values})
	}
	rates := make([]float64, len(s.samples))
	for i := 1; i < len(s.samples); i++ {
		rates[i] = float64(s.samples[i].answered-s.samples[i-1].answered) / (s.samples[i].at - s.samples[i-1].at).Seconds()
	}
	panels = append(panels, struct {
		name   string
		values []float64
	}{"answers a second", rates})
	high := topEdge + len(panels)*(panelHigh+panelGap) + 10
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" role="img">`+"\n", chartWide, high)
	fmt.Fprintf(&b, "<title>Soak: %s at %d publishes a second</title>\n", s.long, s.rate)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", chartWide, high)
	fmt.Fprintf(&b, `<text x="%d" y="20" font-size="14" font-weight="bold">%s at %d publishes a second</text>`+"\n", leftEdge, s.long, s.rate)
	x := leftEdge
	for _, f := range cycleOf {
		fmt.Fprintf(&b, `<rect x="%d" y="32" width="12" height="12" fill="%s" fill-opacity="0.35"/><text x="%d" y="42">%s</text>`+"\n", x, bandColours[f.name], x+16, f.name)
		x += 40 + 7*len(f.name)
	}
	wide := float64(chartWide - leftEdge - rightEdge)
	at := func(d time.Duration) float64 { return leftEdge + wide*float64(d)/float64(s.long) }
	for i, p := range panels {
		top := topEdge + i*(panelHigh+panelGap) + 20
		most := 0.0
		for _, v := range p.values {
			most = max(most, v)
		}
		most = roundUp(most)
		fmt.Fprintf(&b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", leftEdge, top-6, p.name)
		for _, f := range s.faults {
			fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" fill-opacity="0.15"/>`+"\n", at(f.from), top, max(at(f.to)-at(f.from), 0.5), panelHigh, bandColours[f.name])
		}
		for _, part := range []float64{0, 0.5, 1} {
			y := float64(top) + panelHigh*(1-part)
			fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#bbbbbb" stroke-width="0.5"/><text x="%d" y="%.1f" text-anchor="end">%.0f</text>`+"\n", leftEdge, y, chartWide-rightEdge, leftEdge-6, y+4, most*part)
		}
		fmt.Fprint(&b, `<path fill="none" stroke="#1f4e9c" stroke-width="1.2" d="`)
		for k, v := range p.values {
			fmt.Fprintf(&b, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[k == 0], at(s.samples[k].at), float64(top)+panelHigh*(1-v/most))
		}
		fmt.Fprintln(&b, `"/>`)
		for k := range 6 {
			d := s.long * time.Duration(k) / 5
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#555555">%s</text>`+"\n", at(d), top+panelHigh+14, d.Round(time.Second))
		}
	}
	fmt.Fprintln(&b, "</svg>")
	return b.Bytes()
}

// roundUp is the next of 1, 2, 5, 10 … times a power of ten.
func roundUp(v float64) float64 {
	if v <= 0 {
		return 1
	}
	ten := math.Pow(10, math.Floor(math.Log10(v)))
	for _, k := range []float64{1, 1.5, 2, 3, 5, 7.5, 10} {
		if v <= k*ten {
			return k * ten
		}
	}
	return 10 * ten
}
