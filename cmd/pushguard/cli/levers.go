package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/ops"
	"github.com/pushguard/pushguard/cmd/pushguard/words"
)

type leverFlags struct {
	Account string `help:"Account to act on; not needed when the guard has only one." placeholder:"NAME"`
	DryRun  bool   `help:"Tell what it would do now, and do nothing."`
	adminFlags
}

// path is the admin API's path for one lever of the account.
func (f *leverFlags) path(p *Process, lever string) (string, error) {
	name := f.Account
	if name == "" {
		var st ops.Status
		if err := f.call(p.Ctx, "GET", "/api/v1/status", nil, &st); err != nil {
			return "", err
		}
		if len(st.Accounts) != 1 {
			return "", Usage(fmt.Errorf("this guard has %d accounts: say which with --account", len(st.Accounts)))
		}
		name = st.Accounts[0].Name
	}
	return "/api/v1/accounts/" + url.PathEscape(name) + "/" + lever, nil
}

// errDryRun ends a command that was only to tell what it would do.
var errDryRun = errors.New("dry run")

// move tells what the lever does, on standard error, and moves it.
func (f *leverFlags) move(p *Process, method, lever string, order any) (ops.AccountStatus, error) {
	var out ops.AccountStatus
	path, err := f.path(p, lever)
	if err != nil {
		return out, err
	}
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	var effect ops.Effect
	if err := f.call(p.Ctx, method, path+separator+"dry_run=1", order, &effect); err != nil {
		return out, err
	}
	if f.DryRun {
		printEffect(p.Stdout, effect)
		return out, errDryRun
	}
	printEffect(p.Stderr, effect)
	return out, f.call(p.Ctx, method, path, order, &out)
}

func printEffect(w io.Writer, e ops.Effect) {
	fmt.Fprintln(w, e.Summary)
	if len(e.Priorities) > 0 {
		tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
		fmt.Fprintln(tw, "  a minute\tpublishes\trefused now\trefused then")
		for _, p := range e.Priorities {
			then := "not known"
			if p.Refused != nil {
				then = Grouped(*p.Refused)
			}
			fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\n", p.Priority, Grouped(p.Publishes), Grouped(p.RefusedNow), then)
		}
		tw.Flush()
	}
	for _, n := range e.Notes {
		fmt.Fprintln(w, "  "+n)
	}
}

// done ends a lever's command: with a dry run there is nothing more to say.
func done(err error) error {
	if errors.Is(err, errDryRun) {
		return nil
	}
	return err
}

type BrakeCmd struct {
	On   brakeOnCmd   `cmd:"" help:"Pull the brake, on the whole account or on a part of it."`
	Off  brakeOffCmd  `cmd:"" help:"Lift the brake, or one of several."`
	List brakeListCmd `cmd:"" help:"List the brakes that are on."`
}

type brakeOnCmd struct {
	Allow   string `help:"What still passes: critical or none. The default is critical, and none for a brake on a part of the account." enum:",critical,none" default:""`
	Caller  string `help:"Only publishes of this caller, or of callers that match." placeholder:"PATTERN"`
	Event   string `help:"Only this event, or events that match." placeholder:"PATTERN"`
	Channel string `help:"Only this channel, or channels that match; one channel of a publish is enough." placeholder:"PATTERN"`
	App     string `help:"Only this app." placeholder:"ID"`
	To      string `help:"Hold what matches to this rate, of all replicas together, instead of stopping it." placeholder:"RATE"`
	Reason  string `help:"Why; it is shown to callers and kept in the audit trail." required:"" placeholder:"TEXT"`
	For     string `help:"Lift it by itself after this long, as 30m, 2h or 2d; without it, it stays until it is lifted." placeholder:"DURATION"`
	Replace bool   `help:"Take the place of a stricter brake that is on."`
	leverFlags
}

func (brakeOnCmd) Help() string {
	return "Examples:\n  pushguard brake on --allow critical --reason 'runaway refresh, see #4711' --for 2h\n" +
		"  pushguard brake on --caller report-job --event 'notification.*' --channel 'private-user-*' --to 5/s --reason 'see #4711' --for 2d\n" +
		"  pushguard brake on --allow none --reason test --dry-run"
}

func (c *brakeOnCmd) Run(p *Process) error {
	if c.For != "" {
		if d, err := words.ParseSpan(c.For); err != nil || d <= 0 {
			if err == nil {
				err = words.ErrSpan
			}
			return UsageError{fmt.Errorf("--for: %w", err)}
		}
	}
	aimed := c.App+c.Caller+c.Event+c.Channel != ""
	if c.To != "" && !aimed {
		return UsageError{errors.New("--to needs --caller, --event, --channel or --app: say what is held to that rate")}
	}
	if c.Allow == "" {
		c.Allow = "critical"
		if aimed {
			c.Allow = "none"
		}
	}
	order := ops.BrakeOrder{Allow: c.Allow, Reason: c.Reason, For: c.For, By: operator(),
		App: c.App, Caller: c.Caller, Event: c.Event, Channel: c.Channel, To: c.To, Replace: c.Replace}
	st, err := c.move(p, "POST", "brake", order)
	if err != nil {
		return done(err)
	}
	if aimed {
		for _, a := range st.Aimed {
			if a.App == c.App && a.Caller == c.Caller && a.Event == c.Event && a.Channel == c.Channel {
				_, err = fmt.Fprintf(p.Stdout, "brake on: account %s, %s, %s. Lift it with: pushguard brake off %s\n", st.Name, a.ID, visible(a.What), a.ID)
				return err
			}
		}
	}
	until := "until it is lifted"
	if st.Brake != nil && st.Brake.Until != nil {
		until = "until " + st.Brake.Until.Format(time.RFC3339)
	}
	_, err = fmt.Fprintf(p.Stdout, "brake on: account %s, passing %s, %s\n", st.Name, c.Allow, until)
	return err
}

type brakeOffCmd struct {
	ID     string `arg:"" optional:"" help:"The aimed brake to lift, as brake list names it; without it, the brake on the whole account." name:"id"`
	All    bool   `help:"Lift every brake of the account."`
	Reason string `help:"Why, for the audit trail." placeholder:"TEXT"`
	leverFlags
}

func (brakeOffCmd) Help() string {
	return "Examples:\n  pushguard brake off\n  pushguard brake off b2 --reason 'fixed by #4711'\n  pushguard brake off --all"
}

func (c *brakeOffCmd) Run(p *Process) error {
	q := url.Values{"by": {operator()}}
	if c.Reason != "" {
		q.Set("reason", c.Reason)
	}
	if c.ID != "" {
		q.Set("id", c.ID)
	}
	if c.All {
		q.Set("id", "all")
	}
	st, err := c.move(p, "DELETE", "brake?"+q.Encode(), nil)
	if err != nil {
		return done(err)
	}
	what := ""
	if c.ID != "" && !c.All {
		what = ", " + c.ID
	}
	if _, err = fmt.Fprintf(p.Stdout, "brake off: account %s%s\n", st.Name, what); err != nil {
		return err
	}
	return printBrakes(p.Stdout, st.Brake, st.Aimed, "still on: ")
}

type brakeListCmd struct {
	JSON bool `help:"Print JSON."`
	leverFlags
}

func (brakeListCmd) Help() string { return "Example:\n  pushguard brake list" }

func (c *brakeListCmd) Run(p *Process) error {
	path, err := c.path(p, "brake")
	if err != nil {
		return err
	}
	var out ops.BrakesStatus
	if err := c.call(p.Ctx, "GET", path, nil, &out); err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(p.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(out)
	}
	if out.Brake == nil && len(out.Aimed) == 0 {
		_, err := fmt.Fprintln(p.Stdout, "no brake is on")
		return err
	}
	return printBrakes(p.Stdout, out.Brake, out.Aimed, "")
}

func printBrakes(w io.Writer, b *ops.BrakeStatus, aimed []ops.AimStatus, before string) error {
	if b != nil {
		until := "until it is lifted"
		if b.Until != nil {
			until = "until " + b.Until.Format(time.RFC3339)
		}
		if _, err := fmt.Fprintf(w, "%sthe whole account, passing %s, %s, by %s: %s\n", before, b.Priority, until, visible(b.By), visible(b.Reason)); err != nil {
			return err
		}
	}
	for _, a := range aimed {
		if _, err := fmt.Fprintf(w, "%s%s  %s, by %s: %s\n", before, a.ID, visible(a.What), visible(a.By), visible(a.Reason)); err != nil {
			return err
		}
	}
	return nil
}

type PlanCmd struct {
	Set planSetCmd `cmd:"" help:"Give the account another number of messages a day, live on every replica."`
}

type planSetCmd struct {
	Messages int64  `arg:"" help:"Messages a day, as Pusher counts them."`
	Reason   string `help:"Why, for the audit trail." placeholder:"TEXT"`
	leverFlags
}

func (planSetCmd) Help() string {
	return "Example:\n  pushguard plan set 10000000 --reason 'raised to Business'"
}

func (c *planSetCmd) Run(p *Process) error {
	st, err := c.move(p, "PUT", "plan", ops.PlanOrder{MessagesPerDay: c.Messages, Reason: c.Reason, By: operator()})
	if err != nil {
		return done(err)
	}
	_, err = fmt.Fprintf(p.Stdout, "plan set: account %s, %d messages a day, %d used, %d left\n", st.Name, st.Plan.MessagesPerDay, st.Used, st.Remaining)
	return err
}

type HeldCmd struct {
	Release heldReleaseCmd `cmd:"" help:"Send now what is held for later, on every replica."`
}

type heldReleaseCmd struct {
	Reason string `help:"Why, for the audit trail." placeholder:"TEXT"`
	leverFlags
}

func (heldReleaseCmd) Help() string {
	return "How many are held is in pushguard status. Examples:\n  pushguard held release --dry-run\n  pushguard held release --reason 'Redis is replaced tonight'"
}

func (c *heldReleaseCmd) Run(p *Process) error {
	st, err := c.move(p, "POST", "held/release", ops.HeldOrder{Reason: c.Reason, By: operator()})
	if err != nil {
		return done(err)
	}
	_, err = fmt.Fprintf(p.Stdout, "held release: account %s, %d are still held\n", st.Name, st.Held.Waiting+st.Held.Sending)
	return err
}

type UsageCmd struct {
	Set usageSetCmd `cmd:"" help:"Set what is used today, to match Pusher's own dashboard."`
	Add usageAddCmd `cmd:"" help:"Add messages that pushguard has not seen to what is used today."`
}

type usageSetCmd struct {
	Used   int64  `arg:"" help:"Messages used today, as Pusher's dashboard shows them."`
	At     string `help:"Time of today, in UTC, at which Pusher's dashboard showed them; what was counted since is added." placeholder:"HH:MM"`
	Reason string `help:"Why, for the audit trail." placeholder:"TEXT"`
	leverFlags
}

func (usageSetCmd) Help() string {
	return "Examples:\n  pushguard usage set 812345 --reason 'client events do not pass the guard'\n  pushguard usage set 790000 --at 14:05 --reason 'as the dashboard showed'"
}

func (c *usageSetCmd) Run(p *Process) error {
	st, err := c.move(p, "PUT", "usage", ops.UsageOrder{Used: &c.Used, At: c.At, Reason: c.Reason, By: operator()})
	if err != nil {
		return done(err)
	}
	_, err = fmt.Fprintf(p.Stdout, "usage set: account %s, %d of %d used\n", st.Name, st.Used, st.Plan.MessagesPerDay)
	return err
}

type usageAddCmd struct {
	Messages int64  `arg:"" help:"Messages that Pusher counted and pushguard did not; fewer than none takes some away."`
	Reason   string `help:"Why, for the audit trail." placeholder:"TEXT"`
	leverFlags
}

func (usageAddCmd) Help() string {
	return "Example:\n  pushguard usage add 40000 --reason 'a nightly job that publishes directly'"
}

func (c *usageAddCmd) Run(p *Process) error {
	st, err := c.move(p, "PUT", "usage", ops.UsageOrder{Add: c.Messages, Reason: c.Reason, By: operator()})
	if err != nil {
		return done(err)
	}
	_, err = fmt.Fprintf(p.Stdout, "usage add: account %s, %d of %d used\n", st.Name, st.Used, st.Plan.MessagesPerDay)
	return err
}
