package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/ops"
)

type TopCmd struct {
	By       string        `help:"What to rank: caller, event, channel or payload." enum:"caller,event,channel,payload" default:"caller"`
	Window   time.Duration `help:"Over how long, for event, channel and payload." default:"1m" placeholder:"DURATION"`
	Limit    int           `help:"How many lines." default:"20" placeholder:"N"`
	Interval time.Duration `help:"How often to look." default:"2s" placeholder:"DURATION"`
	Once     bool          `help:"Print once and end; so does an output that is no terminal."`
	JSON     bool          `help:"Print the admin API's JSON once and end." name:"json"`
	adminFlags
}

func (TopCmd) Help() string {
	return `Refreshes itself until Ctrl-C.

Examples:
  pushguard top
  pushguard top --by channel --window 10m
  pushguard top --once | head`
}

func (c *TopCmd) Run(p *Process) error {
	if c.Interval < 200*time.Millisecond || c.Limit < 1 || c.Limit > 1000 {
		return Usage(fmt.Errorf("--interval %s and --limit %d: at least 200ms, and from 1 to 1000", c.Interval, c.Limit))
	}
	path := "/api/v1/top?" + url.Values{"by": {c.By}, "window": {c.Window.String()}, "limit": {fmt.Sprint(c.Limit)}}.Encode()
	if c.JSON {
		var rows []ops.TopRow
		if err := c.call(p.Ctx, "GET", path, nil, &rows); err != nil {
			return err
		}
		return printJSON(p.Stdout, rows)
	}
	if c.Once || !IsTerminal(p.Stdout) {
		var b bytes.Buffer
		if err := c.look(p.Ctx, &b, path); err != nil {
			return err
		}
		_, err := p.Stdout.Write(b.Bytes())
		return err
	}
	return c.live(p, path)
}

// The few words of a terminal that top needs: every one that is in use since the
// VT100 knows them.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearRest   = "\x1b[J"
)

// live draws over what was drawn, on the terminal's second screen, so that what
// was there before comes back at the end. A guard that does not answer is said
// so, and asked again.
func (c *TopCmd) live(p *Process, path string) error {
	fmt.Fprint(p.Stdout, enterScreen)
	defer fmt.Fprint(p.Stdout, leaveScreen)
	tick := time.NewTicker(c.Interval)
	defer tick.Stop()
	var last bytes.Buffer
	var heard time.Time
	for {
		var b bytes.Buffer
		note := fmt.Sprintf("every %s, Ctrl-C ends\n", c.Interval)
		if err := c.look(p.Ctx, &b, path); err != nil {
			if p.Ctx.Err() != nil {
				return nil
			}
			if heard.IsZero() {
				return err
			}
			note = fmt.Sprintf("THIS IS %s OLD: %v\n", time.Since(heard).Round(time.Second), err)
		} else {
			last, heard = b, time.Now()
		}
		text := note + last.String()
		fmt.Fprint(p.Stdout, home, strings.ReplaceAll(text, "\n", clearLine+"\r\n"), clearRest)
		select {
		case <-p.Ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look asks the guard and writes one picture of it.
func (c *TopCmd) look(ctx context.Context, w io.Writer, path string) error {
	var st ops.Status
	if err := c.call(ctx, "GET", "/api/v1/status", nil, &st); err != nil {
		return err
	}
	var incidents []ops.Incident
	if err := c.call(ctx, "GET", "/api/v1/incidents", nil, &incidents); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "pushguard on %s, up %s, store %s %s, %s\n", st.Replica, time.Duration(st.UptimeS)*time.Second, st.Store.Kind, st.Store.State, time.Now().UTC().Format("15:04:05 UTC"))
	b.WriteString(reloadLine(st))
	for _, a := range st.Accounts {
		b.WriteByte('\n')
		printPlan(&b, a, incidents, time.Now())
		if c.By == "caller" {
			printCallers(&b, a, c.Limit)
		}
	}
	if c.By != "caller" {
		var rows []ops.TopRow
		if err := c.call(ctx, "GET", path, nil, &rows); err != nil {
			return err
		}
		printTop(&b, c.By, c.Window, rows)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func printCallers(b *strings.Builder, a ops.AccountStatus, limit int) {
	list := slices.Clone(a.Callers)
	slices.SortFunc(list, func(x, y ops.CallerStatus) int {
		return cmp.Or(cmp.Compare(y.Rate10s, x.Rate10s), cmp.Compare(y.MessagesToday, x.MessagesToday), cmp.Compare(x.Name, y.Name))
	})
	var total float64
	for _, c := range list {
		total += c.Rate10s
	}
	tw := tabwriter.NewWriter(b, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "  caller\tpublishes/s\tshare\t\tusual\trefused/min\tmessages today")
	for _, c := range list[:min(limit, len(list))] {
		share := 0.0
		if total > 0 {
			share = c.Rate10s / total
		}
		mark := ""
		if c.Usual != nil && c.Rate10s >= 1 && c.Rate10s >= 3*max(*c.Usual, 0.1) {
			mark = "  <- far above its usual rate"
		}
		fmt.Fprintf(tw, "  %s\t%.1f\t%.0f%%\t%s\t%s\t%s\t%s%s\n", visible(c.Name), c.Rate10s, share*100, bar(share, 12), usually(c), Grouped(c.Held1m), Grouped(c.MessagesToday), mark)
	}
	tw.Flush()
}

func printTop(b *strings.Builder, by string, window time.Duration, rows []ops.TopRow) {
	if len(rows) == 0 {
		fmt.Fprintf(b, "\nno %s is known: nothing was published in %s, or the detector is not running\n", by, window)
		return
	}
	tw := tabwriter.NewWriter(b, 2, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "\n  %s\tpublishes in %s\tat most too high by\tshare\t\n", by, window)
	for _, r := range rows {
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%.1f%%\t%s\n", visible(r.Key), Grouped(r.Count), Grouped(r.Error), r.Share*100, bar(r.Share, 12))
	}
	tw.Flush()
}
