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
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/ops"
	"github.com/pushguard/pushguard/cmd/pushguard/words"
)

type StatusCmd struct {
	Account string   `help:"Only this account." placeholder:"NAME"`
	JSON    bool     `help:"Print the admin API's JSON as it is." name:"json"`
	FailIf  []string `help:"Print nothing, and exit with code 1 and what holds, if this holds for any account; can be given several times. See the examples for what can be asked." placeholder:"CONDITION" sep:"none"`
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
	if err := choose(&st, c.Account); err != nil {
		return err
	}
	var incidents []ops.Incident
	if err := c.call(p.Ctx, "GET", "/api/v1/incidents", nil, &incidents); err != nil {
		return err
	}
	switch {
	case c.JSON:
		if err := printJSON(p.Stdout, st); err != nil {
			return err
		}
	case len(tests) == 0:
		return printStatus(p.Stdout, windowOf(p.Stdout, p.Getenv), st, incidents, time.Now())
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

// choose leaves only the account of that name; empty is all.
func choose(st *ops.Status, name string) error {
	if name == "" {
		return nil
	}
	var names []string
	for _, a := range st.Accounts {
		if a.Name == name {
			st.Accounts = []ops.AccountStatus{a}
			return nil
		}
		names = append(names, a.Name)
	}
	return Usage(fmt.Errorf("this guard has no account %q; it has %s", name, strings.Join(names, ", ")))
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
	return "config RELOAD REFUSED: the file has mistakes and the config before it is in force; " + words.CheckConfig() + " names them, as do /readyz and the log\n"
}

func headLine(w window, st ops.Status, now time.Time) string {
	line := fmt.Sprintf("pushguard %s on %s, up %s, store %s %s, %s", st.Version, st.Replica, words.Span(time.Duration(st.UptimeS)*time.Second), st.Store.Kind, st.Store.State, now.UTC().Format("15:04:05 UTC"))
	return cutTo(visible(line), w.width) + "\n"
}

func printStatus(out io.Writer, w window, st ops.Status, incidents []ops.Incident, now time.Time) error {
	var b strings.Builder
	b.WriteString(headLine(w, st, now))
	b.WriteString(reloadLine(st))
	for _, a := range st.Accounts {
		b.WriteByte('\n')
		printPlan(&b, w, a, incidents, now)
		printCallers(&b, w, a, len(a.Callers))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// printPlan answers: are we all right, when does the plan run out, who is it,
// what is the guard doing, what can be done. The sentences are the guard's own.
func printPlan(b *strings.Builder, w window, a ops.AccountStatus, incidents []ops.Incident, now time.Time) {
	plan := max(a.Plan.MessagesPerDay, 1)
	used := float64(a.Used) / float64(plan)
	line := func(label, format string, args ...any) { w.wrapped(b, label, visible(fmt.Sprintf(format, args...))) }
	b.WriteString(cutTo(fmt.Sprintf("account %s (%s)", a.Name, cmp.Or(a.Plan.Name, "custom")), w.width) + "\n")
	v := a.Verdict
	if v.Title != "" {
		mark := map[string]string{"bad": "PROBLEM: ", "warn": "WARNING: ", "note": "note: "}[v.Severity]
		line("now", "%s%s. %s", mark, v.Title, v.Text)
	}
	size := 24
	if w.width > 0 {
		size = min(max(w.width-46, 8), 24)
	}
	line("plan", "%s %s used: %s of %s messages on %s UTC, %s left", bar(used, size), words.Part(used), Grouped(a.Used), Grouped(a.Plan.MessagesPerDay), a.Day, Grouped(a.Remaining))
	basis := "if this rate holds"
	if a.Forecast.Basis == "profile" {
		basis = fmt.Sprintf("by the profile of the week, %d of 168 hours known", a.Forecast.ProfileHours)
	}
	if v.Lasts != "" {
		line("until", "%s %s messages/s now; %s.", v.Lasts, words.Rate(a.Forecast.PerSecond), basis)
		line("count", "%s", a.Bill.Line())
		if b := a.Bill; b.Browser > 0 || b.Unseen > 0 {
			line("beside", "%s messages of browser traffic (webhooks, presence, subscription counts, client events), %s booked for traffic that never passes here.", Grouped(b.Browser), Grouped(b.Unseen))
		}
		if a.Bill.Shortfall != "" {
			line("short", "%s.", a.Bill.Shortfall)
		}
	}
	if v.Who != "" {
		line("who", "%s", v.Who)
	}
	if v.Doing != "" {
		line("doing", "%s", v.Doing)
	}
	quota := words.Quota(a.Breaker.State)
	if a.Breaker.State != "closed" {
		quota += fmt.Sprintf(", since %s: %s", words.Clock(a.Breaker.Since, now), a.Breaker.Reason)
	}
	line("quota", "%s", quota)
	if text := burnLine(a.Breaker); text != "" {
		line("burning", "%s", text)
	}
	if text := storeLine(a.Ledger, now); text != "" {
		line("store", "%s", text)
	}
	if a.Brake != nil {
		until := "until it is lifted"
		if a.Brake.Until != nil {
			until = "until " + words.Clock(*a.Brake.Until, now)
		}
		line("brake", "ON, passing %s, %s, by %s: %s", a.Brake.Priority, until, a.Brake.By, a.Brake.Reason)
	}
	for _, x := range a.Aimed {
		fmt.Fprintf(b, "  brake    %s %s, by %s: %s\n", x.ID, visible(x.What), visible(x.By), visible(x.Reason))
	}
	if a.Exhausted != nil {
		line("pusher", "REFUSES since %s: %s", words.Clock(a.Exhausted.Since, now), a.Exhausted.Reason)
	}
	for _, app := range a.Apps {
		text := fmt.Sprintf("%s to %s: upstream breaker %s, %s of calls fail", app.ID, app.Upstream.URL, app.Upstream.State, words.Part(app.Upstream.ErrorRate))
		if app.Upstream.Silent {
			text += ", SILENT: it answers nothing, and one request each 100 ms finds out"
		}
		if app.Mode != "enforce" {
			text += ", mode " + app.Mode
		}
		line("app", "%s", text)
	}
	if h := a.Held; h.Waiting+h.Sending > 0 {
		line("held", "%s wait to be sent, %s of them overdue", words.Plural(h.Waiting+h.Sending, "publish"), Grouped(h.Overdue))
	}
	if s := a.Swallowed; s != nil && (a.Sink || s.Events > 0) {
		what := "load test: "
		if a.Sink {
			what = "SINK: nothing is sent; "
		}
		line("not sent", "%s%s swallowed; they would have cost %s messages", what, words.Plural(s.Events, "publish"), Grouped(s.Messages))
	}
	for _, in := range incidents {
		if in.Account == a.Name && in.State == ops.IncidentOpen {
			line("incident", "%s since %s: %s (%s)", in.ID, words.Clock(in.StartedAt, now), in.Headline(), in.Action)
		}
	}
	if v.Try != "" {
		line("try", "%s", v.Try)
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
	return words.Rate(*c.Usual)
}

// visible keeps what callers chose from moving the cursor of a terminal.
func visible(s string) string { return words.Printable(s) }

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
func Grouped(n int64) string { return words.Count(n) }

// burnLine says how fast the plan burns, and, where the breaker does not say it already, what that asks for.
func burnLine(br ops.BreakerStatus) string {
	var parts []string
	for _, w := range br.Burn.Windows {
		if w.Times != nil {
			parts = append(parts, fmt.Sprintf("%s over %s", words.Times(*w.Times), words.Span(time.Duration(w.OverS*float64(time.Second)))))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	line := "times its even rate: " + strings.Join(parts, ", ")
	if br.Burn.State != "closed" && br.Burn.State != br.State {
		line += fmt.Sprintf("; asks for %s (burn_rate: %s): %s", words.Quota(br.Burn.State), br.Burn.Mode, br.Burn.Reason)
	}
	if br.Burn.Trips > 0 {
		line += fmt.Sprintf("; began to refuse %s today", words.Plural(int64(br.Burn.Trips), "time"))
	}
	return line
}

// storeLine says what this replica does without the store; empty while it has it.
func storeLine(l ops.LedgerStatus, now time.Time) string {
	switch {
	case l.StoreUp && l.Healing:
		return fmt.Sprintf("LOST DATA, and is being told what replicas know; this one spends from %s leased messages", Grouped(l.Lease))
	case l.StoreUp || l.StoreError == "":
		return ""
	}
	line := fmt.Sprintf("LOST since %s (%s), on_store_loss: %s: ", words.Clock(l.StoreSince, now), l.StoreError, l.OnStoreLoss)
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
