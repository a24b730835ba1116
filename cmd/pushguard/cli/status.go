package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/pushguard/pushguard/cmd/pushguard/ops"
)

type StatusCmd struct {
	JSON   bool     `help:"Print the admin API's JSON as it is." name:"json"`
	FailIf []string `help:"Exit with code 1 if this holds for any account; can be given several times. See the examples for what can be asked." placeholder:"CONDITION" sep:"none"`
	adminFlags
}

func (StatusCmd) Help() string {
	return `Examples:
  pushguard status
  pushguard status --json --admin 10.0.0.5:8081
  pushguard status --fail-if breaker!=closed --fail-if 'used>=80%'

A condition is FIELD OP VALUE with = != < <= > >=. Fields:
  breaker    closed, shed_bulk, shed_normal, critical_only, open, half_open
  brake      on, off
  store      up, down
  upstream   closed, open, half-open, of any app
  used       messages, or with % the part of the plan
  forecast   messages used by 00:00 UTC at this rate, or with % the part of the plan
  remaining  messages
  refused    publishes refused in the last minute
  incidents  how many are open`
}

func (c *StatusCmd) Run(p *Process) error {
	var tests []condition
	for _, text := range c.FailIf {
		t, err := parseCondition(text)
		if err != nil {
			return Usage(err)
		}
		tests = append(tests, t)
	}
	var st ops.Status
	if err := c.call(p.Ctx, "GET", "/api/v1/status", nil, &st); err != nil {
		return err
	}
	var incidents []ops.Incident
	if err := c.call(p.Ctx, "GET", "/api/v1/incidents", nil, &incidents); err != nil {
		return err
	}
	if c.JSON {
		if err := printJSON(p.Stdout, st); err != nil {
			return err
		}
	} else if err := printStatus(p.Stdout, st, incidents, time.Now()); err != nil {
		return err
	}
	var held []string
	for _, a := range st.Accounts {
		for _, t := range tests {
			if is, met := t.met(st, a, incidents); met {
				held = append(held, fmt.Sprintf("account %s: %s (it is %s)", a.Name, t.text, is))
			}
		}
	}
	if len(held) > 0 {
		return errors.New(strings.Join(held, "; "))
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// reloadLine warns of a config that is not the one in the file.
func reloadLine(st ops.Status) string {
	if !st.ReloadRefused {
		return ""
	}
	return "config RELOAD REFUSED: the file has mistakes and the config before it is in force; pushguard check --config FILE names them, as do /readyz and the log\n"
}

func printStatus(w io.Writer, st ops.Status, incidents []ops.Incident, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "pushguard %s on %s, up %s, store %s %s\n", st.Version, st.Replica, time.Duration(st.UptimeS)*time.Second, st.Store.Kind, st.Store.State)
	b.WriteString(reloadLine(st))
	for _, a := range st.Accounts {
		b.WriteByte('\n')
		printPlan(&b, a, incidents, now)
		tw := tabwriter.NewWriter(&b, 2, 8, 2, ' ', 0)
		fmt.Fprintln(tw, "  caller\tpublishes/s\tusual\trefused/min\tmessages today\toutcomes")
		for _, c := range a.Callers {
			fmt.Fprintf(tw, "  %s\t%.1f\t%s\t%s\t%s\t%s\n", visible(c.Name), c.Rate10s, usually(c), Grouped(c.Held1m), Grouped(c.MessagesToday), Outcomes(c.Outcomes))
		}
		tw.Flush()
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printPlan is the few lines that answer: are we all right, until when, and what
// is the guard doing.
func printPlan(b *strings.Builder, a ops.AccountStatus, incidents []ops.Incident, now time.Time) {
	plan := max(a.Plan.MessagesPerDay, 1)
	used := float64(a.Used) / float64(plan)
	fmt.Fprintf(b, "account %s (%s)\n", a.Name, cmp.Or(a.Plan.Name, "custom"))
	fmt.Fprintf(b, "  plan     %s %.1f%%  %s of %s messages used on %s UTC, %s left\n", bar(used, 24), used*100,
		Grouped(a.Used), Grouped(a.Plan.MessagesPerDay), a.Day, Grouped(a.Remaining))
	by := " if this rate holds"
	if a.Forecast.Basis == "profile" {
		by = fmt.Sprintf(" by the profile of the week (%d of 168 hours known)", a.Forecast.ProfileHours)
	}
	lasts := fmt.Sprintf("lasts past the reset: %.0f%% used by then%s, at %.1f messages/s now", 100*float64(a.Forecast.UsedAtReset)/float64(plan), by, a.Forecast.PerSecond)
	switch {
	case a.Remaining == 0:
		lasts = "USED UP"
	case a.Forecast.ExhaustedAt != nil:
		lasts = fmt.Sprintf("USED UP at %s, in %s%s, at %.1f messages/s now", a.Forecast.ExhaustedAt.Format("15:04:05 UTC"), a.Forecast.ExhaustedAt.Sub(now).Round(time.Second), by, a.Forecast.PerSecond)
	}
	fmt.Fprintf(b, "  until    %s; reset in %s\n", lasts, a.ResetsAt.Sub(now).Round(time.Minute))
	fmt.Fprintf(b, "  breaker  %s", a.Breaker.State)
	if a.Breaker.State != "closed" {
		fmt.Fprintf(b, " since %s: %s", a.Breaker.Since.Format("15:04:05 UTC"), a.Breaker.Reason)
	}
	b.WriteByte('\n')
	if line := burnLine(a.Breaker); line != "" {
		fmt.Fprintf(b, "  burning  %s\n", line)
	}
	if line := storeLine(a.Ledger); line != "" {
		fmt.Fprintf(b, "  store    %s\n", line)
	}
	if a.Brake != nil {
		until := "until it is lifted"
		if a.Brake.Until != nil {
			until = "until " + a.Brake.Until.Format(time.RFC3339)
		}
		fmt.Fprintf(b, "  brake    ON, passing %s, %s, by %s: %s\n", a.Brake.Priority, until, visible(a.Brake.By), visible(a.Brake.Reason))
	}
	for _, x := range a.Aimed {
		fmt.Fprintf(b, "  brake    %s %s, by %s: %s\n", x.ID, visible(x.What), visible(x.By), visible(x.Reason))
	}
	if a.Exhausted != nil {
		fmt.Fprintf(b, "  pusher   REFUSES since %s: %s\n", a.Exhausted.Since.Format("15:04:05 UTC"), visible(a.Exhausted.Reason))
	}
	var asked, refused int64
	for _, p := range a.Priorities {
		asked, refused = asked+p.Publishes, refused+p.Refused
	}
	fmt.Fprintf(b, "  minute   %s publishes, %s refused\n", Grouped(asked), Grouped(refused))
	for _, app := range a.Apps {
		fmt.Fprintf(b, "  app      %s to %s: upstream breaker %s, %.1f%% errors", app.ID, app.Upstream.URL, app.Upstream.State, app.Upstream.ErrorRate*100)
		if app.Upstream.Silent {
			b.WriteString(", SILENT: it answers nothing, and one request each 100 ms finds out")
		}
		if app.Mode != "enforce" {
			fmt.Fprintf(b, ", mode %s", app.Mode)
		}
		b.WriteByte('\n')
	}
	if h := a.Held; h.Waiting+h.Sending > 0 {
		fmt.Fprintf(b, "  held     %s publishes wait to be sent, %s of them overdue\n", Grouped(h.Waiting+h.Sending), Grouped(h.Overdue))
	}
	if s := a.Swallowed; s != nil && (a.Sink || s.Events > 0) {
		what := "load test"
		if a.Sink {
			what = "SINK     nothing is sent;"
		}
		fmt.Fprintf(b, "  %s %s publishes were swallowed; they would have cost %s messages\n", what, Grouped(s.Events), Grouped(s.Messages))
	}
	for _, in := range incidents {
		if in.Account == a.Name && in.State == ops.IncidentOpen {
			fmt.Fprintf(b, "  incident %s since %s: %s (%s)\n", in.ID, in.StartedAt.Format("15:04:05 UTC"), visible(in.Headline()), in.Action)
		}
	}
}

// bar draws a part of a whole in plain characters.
func bar(f float64, width int) string {
	n := min(max(int(f*float64(width)+0.5), 0), width)
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", width-n) + "]"
}

func usually(c ops.CallerStatus) string {
	if c.Usual == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f", *c.Usual)
}

// visible keeps what callers chose from moving the cursor of a terminal.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// condition is one --fail-if.
type condition struct {
	text, field, op, value string
	number                 float64
	percent                bool
}

var conditionForm = regexp.MustCompile(`^\s*([a-z]+)\s*(!=|<=|>=|=|<|>)\s*([^\s=<>!]+)\s*$`)

// The words that a field can be; nil: a number.
var conditionFields = map[string][]string{
	"breaker":  {"closed", "shed_bulk", "shed_normal", "critical_only", "open", "half_open"},
	"brake":    {"on", "off"},
	"store":    {"up", "down"},
	"upstream": {"closed", "open", "half-open"},
	"used":     nil, "forecast": nil, "remaining": nil, "refused": nil, "incidents": nil,
}

func parseCondition(text string) (c condition, err error) {
	m := conditionForm.FindStringSubmatch(text)
	if m == nil {
		return c, fmt.Errorf("--fail-if %q: write FIELD OP VALUE, such as breaker!=closed or 'used>=80%%'", text)
	}
	c = condition{text: text, field: m[1], op: m[2], value: m[3]}
	words, known := conditionFields[c.field]
	switch {
	case !known:
		return c, fmt.Errorf("--fail-if %q: there is no field %q; see pushguard status --help", text, c.field)
	case words != nil && c.op != "=" && c.op != "!=":
		return c, fmt.Errorf("--fail-if %q: %s is a word; compare it with = or !=", text, c.field)
	case words != nil && !slices.Contains(words, c.value):
		return c, fmt.Errorf("--fail-if %q: %s is one of %s", text, c.field, strings.Join(words, ", "))
	case words != nil:
		return c, nil
	}
	digits, percent := strings.CutSuffix(strings.ReplaceAll(c.value, ",", ""), "%")
	c.percent = percent
	if c.number, err = strconv.ParseFloat(digits, 64); err != nil {
		return c, fmt.Errorf("--fail-if %q: %s is compared with a number", text, c.field)
	}
	if percent && c.field != "used" && c.field != "forecast" && c.field != "remaining" {
		return c, fmt.Errorf("--fail-if %q: %s is no part of the plan", text, c.field)
	}
	return c, nil
}

// met says what the field is, and whether the condition holds.
func (c condition) met(st ops.Status, a ops.AccountStatus, incidents []ops.Incident) (is string, met bool) {
	switch c.field {
	case "breaker":
		return c.word(a.Breaker.State)
	case "brake":
		return c.word(map[bool]string{true: "on", false: "off"}[a.Brake != nil])
	case "store":
		return c.word(map[bool]string{true: "up", false: "down"}[st.Store.State == "up"])
	case "upstream":
		for _, app := range a.Apps {
			if is, met = c.word(app.Upstream.State); met {
				return is, met
			}
		}
		return is, false
	}
	var n float64
	switch c.field {
	case "used":
		n = float64(a.Used)
	case "forecast":
		n = float64(a.Forecast.UsedAtReset)
	case "remaining":
		n = float64(a.Remaining)
	case "refused":
		for _, p := range a.Priorities {
			n += float64(p.Refused)
		}
	case "incidents":
		for _, in := range incidents {
			if in.Account == a.Name && in.State == ops.IncidentOpen {
				n++
			}
		}
	}
	is = Grouped(int64(n))
	if c.percent {
		n = 100 * n / float64(max(a.Plan.MessagesPerDay, 1))
		is = fmt.Sprintf("%.1f%%", n)
	}
	return is, map[string]bool{"=": n == c.number, "!=": n != c.number, "<": n < c.number, "<=": n <= c.number, ">": n > c.number, ">=": n >= c.number}[c.op]
}

func (c condition) word(is string) (string, bool) { return is, (is == c.value) == (c.op == "=") }

func Outcomes(m map[string]int64) string {
	var words []string
	for name, n := range m {
		if n > 0 {
			words = append(words, fmt.Sprintf("%s %s", name, Grouped(n)))
		}
	}
	sort.Strings(words)
	return strings.Join(words, ", ")
}

// Grouped writes 1234567 as 1,234,567.
func Grouped(n int64) string {
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

// burnLine says how fast the plan burns, and, where the breaker does not say it already, what that asks for.
func burnLine(br ops.BreakerStatus) string {
	var parts []string
	for _, w := range br.Burn.Windows {
		if w.Times != nil {
			parts = append(parts, fmt.Sprintf("%.1f over %s", *w.Times, time.Duration(w.OverS*float64(time.Second)).Round(time.Second)))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	line := "times its even rate: " + strings.Join(parts, ", ")
	if br.Burn.State != "closed" && br.Burn.State != br.State {
		line += fmt.Sprintf("; asks for %s (burn_rate: %s): %s", br.Burn.State, br.Burn.Mode, br.Burn.Reason)
	}
	if br.Burn.Trips > 0 {
		line += fmt.Sprintf("; shed %d times today", br.Burn.Trips)
	}
	return line
}

// storeLine says what this replica does without the store; empty while it has it.
func storeLine(l ops.LedgerStatus) string {
	switch {
	case l.StoreUp && l.Healing:
		return fmt.Sprintf("LOST DATA, and is being told what replicas know; this one spends from %s leased messages", Grouped(l.Lease))
	case l.StoreUp || l.StoreError == "":
		return ""
	}
	line := fmt.Sprintf("LOST since %s, on_store_loss: %s: ", l.StoreSince.Format("15:04:05 UTC"), l.OnStoreLoss)
	switch {
	case l.OnStoreLoss == "closed":
		return line + "nothing passes"
	case l.OnStoreLoss == "open":
		return line + fmt.Sprintf("%s leased messages left, %s borrowed beyond them", Grouped(l.Lease), Grouped(l.Borrowed))
	case l.LeaseSpent:
		return line + fmt.Sprintf("the lease is spent (%s left), nothing passes", Grouped(l.Lease))
	}
	return line + fmt.Sprintf("%s leased messages left", Grouped(l.Lease))
}
