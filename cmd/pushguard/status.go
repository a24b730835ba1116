package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/ops"
)

type statusCmd struct {
	JSON bool `help:"Print the admin API's JSON as it is." name:"json"`
	adminFlags
}

func (statusCmd) Help() string {
	return "Examples:\n  pushguard status\n  pushguard status --json --admin 10.0.0.5:8081"
}

func (c *statusCmd) Run(p *process) error {
	var st ops.Status
	if err := c.call(p.ctx, "GET", "/api/v1/status", nil, &st); err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(p.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(st)
	}
	return printStatus(p.stdout, st)
}

func printStatus(w io.Writer, st ops.Status) error {
	var b strings.Builder
	fmt.Fprintf(&b, "pushguard %s on %s, up %s, store %s %s\n", st.Version, st.Replica, time.Duration(st.UptimeS)*time.Second, st.Store.Kind, st.Store.State)
	for _, a := range st.Accounts {
		fmt.Fprintf(&b, "\naccount %s (%s): %s of %s messages used on %s UTC, %s left", a.Name, firstOf(a.Plan.Name, "custom"),
			grouped(a.Used), grouped(a.Plan.MessagesPerDay), a.Day, grouped(a.Remaining))
		if a.Forecast.ExhaustedAt != nil {
			fmt.Fprintf(&b, "; used up at %s at this rate", a.Forecast.ExhaustedAt.Format("15:04 UTC"))
		}
		fmt.Fprintf(&b, "\n  breaker  %s", a.Breaker.State)
		if a.Breaker.Reason != "" {
			fmt.Fprintf(&b, " since %s: %s", a.Breaker.Since.Format(time.RFC3339), a.Breaker.Reason)
		}
		if a.Brake != nil {
			fmt.Fprintf(&b, "\n  brake    on, passing %s, by %s: %s", a.Brake.Priority, a.Brake.By, a.Brake.Reason)
		}
		for _, app := range a.Apps {
			fmt.Fprintf(&b, "\n  app %s to %s: upstream breaker %s, %.1f%% errors", app.ID, app.Upstream.URL, app.Upstream.State, app.Upstream.ErrorRate*100)
		}
		fmt.Fprintln(&b)
		tw := tabwriter.NewWriter(&b, 2, 8, 2, ' ', 0)
		fmt.Fprintln(tw, "  caller\tpublishes/s\tmessages today\toutcomes")
		for _, c := range a.Callers {
			fmt.Fprintf(tw, "  %s\t%.1f\t%s\t%s\n", c.Name, c.Rate1m, grouped(c.MessagesToday), outcomes(c.Outcomes))
		}
		tw.Flush()
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func outcomes(m map[string]int64) string {
	var words []string
	for name, n := range m {
		if n > 0 {
			words = append(words, fmt.Sprintf("%s %s", name, grouped(n)))
		}
	}
	sort.Strings(words)
	return strings.Join(words, ", ")
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if neg {
		return "-" + s
	}
	return s
}
