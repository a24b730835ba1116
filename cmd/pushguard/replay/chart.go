package replay

import (
	"fmt"
	"html"
	"io"
	"strings"
	"time"
)

// The measures of the chart, in pixels.
const (
	chartWidth  = 960
	panelHeight = 210
	marginLeft  = 64
	marginRight = 24
	marginTop   = 78
	panelGap    = 62
)

// The colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), which the
// colour-blind tell apart too.
const (
	inkHealthy = "#0072B2"
	inkLost    = "#E69F00"
	inkCulprit = "#D55E00"
	inkHeld    = "#999999"
	inkPlan    = "#000000"
)

// SVG draws each side: above, what is used of the plan; below, publishes a
// second. The file needs nothing else to be shown.
func (r *Result) SVG(out io.Writer) error {
	var b strings.Builder
	perSide := 2*panelHeight + 2*panelGap
	height := marginTop + len(r.Sides)*perSide
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" font-family="system-ui, sans-serif" font-size="12">`+"\n", chartWidth, height)
	fmt.Fprintf(&b, "<title>%s</title>\n", html.EscapeString("pushguard replay of "+r.Scenario))
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", chartWidth, height)
	fmt.Fprintf(&b, `<text x="%d" y="24" font-size="16" font-weight="600">%s</text>`+"\n", marginLeft, html.EscapeString(r.Scenario+" · account "+r.Account))
	mostUsed, mostRate := int64(1), 0.001
	for i := range r.Sides {
		c := &r.Sides[i].Chart
		for j := range c.Used {
			mostUsed = max(mostUsed, c.Used[j], c.Plan[j])
			mostRate = max(mostRate, c.Healthy[j]+c.HealthyLost[j]+c.Culprit[j]+c.CulpritRefused[j])
		}
	}
	for i := range r.Sides {
		o := &r.Sides[i]
		y := marginTop + i*perSide
		p := panel{b: &b, y: y, from: r.From, until: r.Until, c: &o.Chart}
		p.frame(o.Name+": messages used, of the plan", float64(mostUsed), func(v float64) string { return short(v) })
		p.line(o.Chart.floats(o.Chart.Plan), float64(mostUsed), inkPlan, "6 4", 1.2)
		p.line(o.Chart.floats(o.Chart.Used), float64(mostUsed), inkHealthy, "", 2)
		p.events(o)
		p.y += panelHeight + panelGap
		p.frame(o.Name+": publishes a second", mostRate, func(v float64) string { return short(v) })
		base := make([]float64, len(o.Chart.Used))
		for _, band := range []struct {
			v   []float64
			ink string
		}{{o.Chart.Healthy, inkHealthy}, {o.Chart.HealthyLost, inkLost}, {o.Chart.Culprit, inkCulprit}, {o.Chart.CulpritRefused, inkHeld}} {
			base = p.band(base, band.v, mostRate, band.ink)
		}
	}
	x := marginLeft
	for _, l := range []struct{ ink, text string }{
		{inkHealthy, "used / healthy, delivered"}, {inkLost, "healthy, refused"}, {inkCulprit, "culprit, delivered"}, {inkHeld, "culprit, held back"},
	} {
		fmt.Fprintf(&b, `<rect x="%d" y="34" width="12" height="10" fill="%s"/><text x="%d" y="43">%s</text>`+"\n", x, l.ink, x+17, l.text)
		x += 26 + 7*len(l.text)
	}
	fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="39" y2="39" stroke="%s" stroke-dasharray="6 4"/><text x="%d" y="43">plan</text>`+"\n", x, x+22, inkPlan, x+27)
	b.WriteString("</svg>\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// HTML is the chart with the table below it, in one file.
func (r *Result) HTML(out io.Writer) error {
	var svg, table strings.Builder
	if err := r.SVG(&svg); err != nil {
		return err
	}
	if err := r.Text(&table); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>pushguard replay of %s</title>
<style>body{font-family:system-ui,sans-serif;max-width:1000px;margin:1rem auto;padding:0 1rem}svg{width:100%%;height:auto}pre{overflow-x:auto}</style>
%s<pre>%s</pre>
</html>
`, html.EscapeString(r.Scenario), svg.String(), html.EscapeString(table.String()))
	return err
}

func (c *Chart) floats(n []int64) []float64 {
	out := make([]float64, len(n))
	for i, v := range n {
		out[i] = float64(v)
	}
	return out
}

// panel is one diagram.
type panel struct {
	b           *strings.Builder
	y           int
	from, until time.Time
	c           *Chart
}

func (p *panel) x(t time.Time) float64 {
	w := float64(chartWidth - marginLeft - marginRight)
	return marginLeft + w*float64(t.Sub(p.from))/float64(max(p.until.Sub(p.from), time.Second))
}

func (p *panel) at(v, most float64) float64 {
	return float64(p.y+panelHeight) - v/most*(panelHeight-8)
}

func (p *panel) time(i int) time.Time {
	return p.c.From.Add(time.Duration((i+1)*p.c.StepS) * time.Second)
}

// frame draws title, axes and marks.
func (p *panel) frame(title string, most float64, label func(float64) string) {
	fmt.Fprintf(p.b, `<text x="%d" y="%d" font-weight="600">%s</text>`+"\n", marginLeft, p.y-8, html.EscapeString(title))
	for i := range 5 {
		v := most * float64(i) / 4
		y := p.at(v, most)
		fmt.Fprintf(p.b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#555">%s</text>`+"\n",
			marginLeft, chartWidth-marginRight, y, y, marginLeft-6, y+4, label(v))
	}
	every := 6 * time.Hour
	for p.until.Sub(p.from)/every > 14 {
		every *= 2
	}
	if p.until.Sub(p.from) < 6*time.Hour {
		every = p.until.Sub(p.from).Truncate(time.Minute)/6 + time.Minute
	}
	for t := p.from.Truncate(every); !t.After(p.until); t = t.Add(every) {
		if t.Before(p.from) {
			continue
		}
		form := "15:04"
		if t.Hour() == 0 && t.Minute() == 0 {
			form = "2 Jan"
		}
		fmt.Fprintf(p.b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%s</text>`+"\n", p.x(t), p.y+panelHeight+16, t.UTC().Format(form))
	}
}

func (p *panel) line(v []float64, most float64, ink, dash string, width float64) {
	fmt.Fprintf(p.b, `<polyline fill="none" stroke="%s" stroke-width="%.1f" stroke-dasharray="%s" points="`, ink, width, dash)
	for i := range v {
		fmt.Fprintf(p.b, "%.1f,%.1f ", p.x(p.time(i)), p.at(v[i], most))
	}
	p.b.WriteString("\"/>\n")
}

// band fills between base and base+v, and returns that.
func (p *panel) band(base, v []float64, most float64, ink string) []float64 {
	top := make([]float64, len(base))
	any := false
	for i := range base {
		top[i] = base[i] + v[i]
		any = any || v[i] > 0
	}
	if !any {
		return top
	}
	fmt.Fprintf(p.b, `<polygon fill="%s" fill-opacity=".85" points="`, ink)
	for i := range top {
		fmt.Fprintf(p.b, "%.1f,%.1f ", p.x(p.time(i)), p.at(top[i], most))
	}
	for i := len(base) - 1; i >= 0; i-- {
		fmt.Fprintf(p.b, "%.1f,%.1f ", p.x(p.time(i)), p.at(base[i], most))
	}
	p.b.WriteString("\"/>\n")
	return top
}

// events marks what happened, the text as a tooltip and the first words beside.
func (p *panel) events(o *Outcome) {
	lines := append([]Line(nil), o.Timeline...)
	for _, t := range o.Transitions {
		lines = append(lines, Line{t.At, "breaker", t.To + ": " + t.Reason})
	}
	const most = 60
	for i, l := range lines[:min(len(lines), most)] {
		if l.At.Before(p.from) || l.At.After(p.until) {
			continue
		}
		x := p.x(l.At)
		fmt.Fprintf(p.b, `<g><title>%s</title><line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#555" stroke-width=".8" stroke-dasharray="2 2"/><circle cx="%.1f" cy="%d" r="4" fill="#555"/></g>`+"\n",
			html.EscapeString(l.At.UTC().Format("15:04:05 ")+l.Kind+": "+l.Text), x, x, p.y, p.y+panelHeight, x, p.y+6+12*(i%4))
	}
}

func short(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.3g M", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.3g k", v/1e3)
	}
	return fmt.Sprintf("%.3g", v)
}
