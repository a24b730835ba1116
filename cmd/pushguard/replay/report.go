package replay

import (
	"fmt"
	"io"
	"math"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Text writes the result as a table, a column for each side, and then what
// happened on each in its order.
func (r *Result) Text(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: account %s, %s to %s, seed %d\n", r.Scenario, r.Account, minute(r.From), minute(r.Until), r.Seed)
	fmt.Fprintf(&b, "%s publishes in %.1f s: %s a second, each through %d sides\n\n", grouped(r.Publishes), r.WallSeconds, grouped(int64(r.PerSecond)), len(r.Sides))
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name string, cell func(*Outcome) string) {
		cells := []string{name}
		for i := range r.Sides {
			cells = append(cells, cell(&r.Sides[i]))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	row("", func(o *Outcome) string { return o.Name })
	row("messages billed", func(o *Outcome) string { return grouped(o.Total) })
	for i := range r.days() {
		row("  "+r.days()[i].Day, func(o *Outcome) string {
			if i >= len(o.Days) {
				return "-"
			}
			d := o.Days[i]
			return fmt.Sprintf("%s of %s", grouped(d.Billed), grouped(d.Plan))
		})
	}
	row("plan used up at", func(o *Outcome) string { return orNever(o.UsedUpAt) })
	row("healthy publishes delivered", func(o *Outcome) string { return percent(o.HealthyDelivered, 3) })
	row("lost to the culprit, of the plan", func(o *Outcome) string { return percent(o.LostToCulprit, 2) })
	row("contained publishes", func(o *Outcome) string { return grouped(o.Contained) })
	row("incidents", func(o *Outcome) string { return strconv.Itoa(len(o.Incidents)) })
	row("  and in the warm-up", func(o *Outcome) string { return strconv.Itoa(o.WarmupIncidents) })
	if len(r.Sides) > 0 {
		for i, n := range r.Sides[0].Naming {
			name := "named after"
			if len(r.Sides[0].Naming) > 1 {
				name = fmt.Sprintf("named after (%s)", n.Caller)
			}
			row(name, func(o *Outcome) string { return o.Naming[i].after() })
			row("  of the plan lost by then", func(o *Outcome) string {
				if o.Naming[i].NamedAt == nil {
					return "-"
				}
				return percent(o.Naming[i].Lost, 2)
			})
		}
	}
	for _, name := range r.outcomes() {
		row("  "+name, func(o *Outcome) string { return grouped(o.Outcomes[name]) })
	}
	t.Flush()
	for i := range r.Sides {
		r.Sides[i].course(&b)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// course is what happened on one side, in its order.
func (o *Outcome) course(b *strings.Builder) {
	lines := append([]Line(nil), o.Timeline...)
	for _, t := range o.Transitions {
		lines = append(lines, Line{t.At, "breaker", fmt.Sprintf("%s → %s: %s", t.From, t.To, t.Reason)})
	}
	for _, n := range o.Naming {
		if n.BeganAt != nil {
			lines = append(lines, Line{*n.BeganAt, "truth", fmt.Sprintf("%s begins to run away with %s on %s", n.Caller, n.Event, n.Channel)})
		}
		if n.PassedAt != nil {
			lines = append(lines, Line{*n.PassedAt, "truth", fmt.Sprintf("%s passes three times its usual rate", n.Caller)})
		}
	}
	sort.SliceStable(lines, func(i, j int) bool { return lines[i].At.Before(lines[j].At) })
	fmt.Fprintf(b, "\n%s\n", o.Name)
	if len(lines) == 0 {
		fmt.Fprintln(b, "  nothing happened")
	}
	for _, l := range lines {
		fmt.Fprintf(b, "  %s  %-9s %s\n", l.At.Format("2006-01-02 15:04:05"), l.Kind, l.Text)
	}
}

func (n *Naming) after() string {
	switch {
	case n.NamedAt == nil:
		return "never"
	case n.AfterSeconds == nil:
		return "before it passed ×3"
	}
	return time.Duration(*n.AfterSeconds * float64(time.Second)).Round(time.Second).String()
}

// days are those of the side that has most.
func (r *Result) days() (most []Day) {
	for i := range r.Sides {
		if len(r.Sides[i].Days) > len(most) {
			most = r.Sides[i].Days
		}
	}
	return most
}

func (r *Result) outcomes() []string {
	seen := map[string]bool{}
	var names []string
	for _, o := range r.Sides {
		for n := range o.Outcomes {
			if !seen[n] {
				seen[n] = true
				names = append(names, n)
			}
		}
	}
	sort.Strings(names)
	return names
}

func orNever(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return minute(*t)
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

// percent is rounded down: 99.9999 is not yet 100.
func percent(f float64, digits int) string {
	f = math.Floor(f*math.Pow10(digits+2)+1e-6) / math.Pow10(digits+2)
	return strconv.FormatFloat(f*100, 'f', digits, 64) + " %"
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
