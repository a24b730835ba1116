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
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/ops"
	"github.com/pushguard/pushguard/cmd/pushguard/words"
)

type TopCmd struct {
	Account  string        `help:"Only this account." placeholder:"NAME"`
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
	path := "/api/v1/top?" + url.Values{"by": {c.By}, "window": {c.Window.String()}, "limit": {fmt.Sprint(c.Limit)}, "account": {c.Account}}.Encode()
	if c.JSON {
		var rows []ops.TopRow
		if err := c.call(p.Ctx, "GET", path, nil, &rows); err != nil {
			return err
		}
		return printJSON(p.Stdout, rows)
	}
	if c.Once || !IsTerminal(p.Stdout) {
		var b bytes.Buffer
		w := windowOf(p.Stdout, p.Getenv)
		w.height = 0
		if err := c.look(p.Ctx, &b, w, path); err != nil {
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
		w := windowOf(p.Stdout, p.Getenv) // anew: windows are dragged
		note := fmt.Sprintf("every %s, Ctrl-C ends\n", words.Span(c.Interval))
		if err := c.look(p.Ctx, &b, w, path); err != nil {
			if p.Ctx.Err() != nil {
				return nil
			}
			if heard.IsZero() {
				return err
			}
			note = fmt.Sprintf("THIS IS %s OLD: %v\n", words.Span(time.Since(heard).Round(time.Second)), err)
		} else {
			last, heard = b, time.Now()
		}
		text := w.fit(note + last.String())
		fmt.Fprint(p.Stdout, home, strings.ReplaceAll(text, "\n", clearLine+"\r\n"), clearRest)
		select {
		case <-p.Ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// fit cuts lines and height to the window.
func (w window) fit(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if w.height > 0 && len(lines) > w.height-1 {
		lines = append(lines[:max(w.height-2, 1)], "… more: a higher window, --account NAME, or pushguard status")
	}
	for i := range lines {
		lines[i] = cutTo(lines[i], w.width)
	}
	return strings.Join(lines, "\n") + "\n"
}

// look asks the guard and writes one picture of it.
func (c *TopCmd) look(ctx context.Context, out io.Writer, w window, path string) error {
	var st ops.Status
	if err := c.call(ctx, "GET", "/api/v1/status", nil, &st); err != nil {
		return err
	}
	if err := choose(&st, c.Account); err != nil {
		return err
	}
	var incidents []ops.Incident
	if err := c.call(ctx, "GET", "/api/v1/incidents", nil, &incidents); err != nil {
		return err
	}
	now := time.Now()
	var b strings.Builder
	b.WriteString(headLine(w, st, now))
	b.WriteString(reloadLine(st))
	// Several accounts: those that are not all right in full, the others in a line each.
	list := slices.Clone(st.Accounts)
	busy := func(a ops.AccountStatus) int {
		return slices.Index([]string{"bad", "warn", "note"}, a.Verdict.Severity)
	}
	quiet := func(a ops.AccountStatus) bool { return len(st.Accounts) > 3 && busy(a) < 0 }
	slices.SortStableFunc(list, func(x, y ops.AccountStatus) int {
		rank := func(a ops.AccountStatus) int { return (busy(a) + 4) % 4 }
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(y.Minute.Asked, x.Minute.Asked))
	})
	room := c.Limit
	if w.height > 0 {
		room = min(room, max((w.height-2)/max(min(len(list), 3), 1)-14, 3))
	}
	for _, a := range list {
		if quiet(a) {
			continue
		}
		b.WriteByte('\n')
		printPlan(&b, w, a, incidents, now)
		if c.By == "caller" {
			printCallers(&b, w, a, room)
		}
	}
	printQuiet(&b, w, list, quiet)
	if c.By != "caller" {
		var rows []ops.TopRow
		if err := c.call(ctx, "GET", path, nil, &rows); err != nil {
			return err
		}
		printTop(&b, w, c.By, c.Window, rows)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// printQuiet lists accounts that are all right.
func printQuiet(b *strings.Builder, w window, list []ops.AccountStatus, quiet func(ops.AccountStatus) bool) {
	columns := []column{{title: "account"}, {title: "used", right: true}, {title: "publishes/min", right: true, drop: 1}, {title: "", drop: 2}}
	for _, a := range list {
		if !quiet(a) {
			continue
		}
		for i, s := range []string{a.Name, words.Part(float64(a.Used) / float64(max(a.Plan.MessagesPerDay, 1))), words.Count(a.Minute.Asked), a.Verdict.Short} {
			columns[i].cells = append(columns[i].cells, s)
		}
	}
	if len(columns[0].cells) > 0 {
		b.WriteByte('\n')
		w.table(b, columns)
	}
}

// printCallers lists the busiest first; those that are idle are one line.
func printCallers(b *strings.Builder, w window, a ops.AccountStatus, limit int) {
	list := slices.Clone(a.Callers)
	slices.SortFunc(list, func(x, y ops.CallerStatus) int {
		return cmp.Or(cmp.Compare(y.Rate10s, x.Rate10s), cmp.Compare(y.Held1m, x.Held1m), cmp.Compare(y.MessagesToday, x.MessagesToday), cmp.Compare(x.Name, y.Name))
	})
	busy := len(list)
	for busy > 0 && list[busy-1].Rate10s == 0 && list[busy-1].Held1m == 0 {
		busy--
	}
	idle := len(list) - busy
	if busy == 0 { // then those of today, so that the names are there
		for busy < min(limit, 5) && busy < len(list) && list[busy].MessagesToday > 0 {
			busy++
		}
		idle = len(list) - busy
	}
	shown := min(limit, busy)
	var total float64
	for _, c := range list {
		total += c.Rate10s
	}
	columns := []column{{title: "caller"}, {title: "publishes/s", right: true}, {title: "share", right: true, drop: 4}, {title: "usual", right: true, drop: 3},
		{title: "refused/min", right: true, drop: 1}, {title: "messages today", right: true, drop: 5}, {title: "", drop: 2}, {title: "outcomes", drop: 6}}
	for _, c := range list[:shown] {
		mark := ""
		if c.Usual != nil && c.Rate10s >= 1 && c.Rate10s >= 3*max(*c.Usual, 0.1) {
			mark = "<- far above its usual rate"
		}
		for i, s := range []string{visible(c.Name), words.Rate(c.Rate10s), words.Part(c.Rate10s / max(total, 1e-9)), usually(c), Grouped(c.Held1m), Grouped(c.MessagesToday), mark, Outcomes(c.Outcomes)} {
			columns[i].cells = append(columns[i].cells, s)
		}
	}
	if shown > 0 {
		w.table(b, columns)
	}
	switch more := busy - shown; {
	case more > 0 && idle > 0:
		b.WriteString(cutTo(fmt.Sprintf("  and %d more, %d idle", more, idle), w.width) + "\n")
	case more > 0:
		b.WriteString(cutTo(fmt.Sprintf("  and %d more", more), w.width) + "\n")
	case idle > 0:
		b.WriteString(cutTo(fmt.Sprintf("  %s idle", words.Plural(int64(idle), "caller")), w.width) + "\n")
	}
}

func printTop(b *strings.Builder, w window, by string, over time.Duration, rows []ops.TopRow) {
	if len(rows) == 0 {
		fmt.Fprintf(b, "\nno %s is known: nothing was published in %s, or the detector is not running\n", by, words.Span(over))
		return
	}
	columns := []column{{title: by}, {title: "publishes in " + words.Span(over), right: true}, {title: "may be too high by", right: true, drop: 3}, {title: "share", right: true, drop: 1}, {title: "", drop: 2}}
	for _, r := range rows {
		for i, s := range []string{visible(r.Key), Grouped(r.Count), Grouped(r.Error), words.Part(r.Share), bar(r.Share, 12)} {
			columns[i].cells = append(columns[i].cells, s)
		}
	}
	b.WriteByte('\n')
	w.table(b, columns)
}
