package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/ops"
	"github.com/pushguard/pushguard/cmd/pushguard/words"
)

type IncidentsCmd struct {
	ID      string `arg:"" optional:"" help:"One incident, with its timeline; without it, all are listed."`
	Contain bool   `help:"Hold the incident's culprits to their allowance." xor:"act"`
	Release bool   `help:"Let the incident's culprits go." xor:"act"`
	Accept  bool   `help:"Say that it is usual from now on: the incident ends, and the present rates become the usual ones." xor:"act"`
	Ack     bool   `help:"Say that you look after the incident." xor:"act"`
	Reason  string `help:"Why, for the audit trail; contain, release and accept need it." placeholder:"TEXT"`
	DryRun  bool   `help:"Tell what contain, release, accept or ack would do now, and do nothing."`
	JSON    bool   `help:"Print the admin API's JSON as it is." name:"json" xor:"form"`
	Draft   bool   `help:"Print a post-mortem draft in Markdown." xor:"form"`
	adminFlags
}

func (IncidentsCmd) Help() string {
	return `Examples:
  pushguard incidents
  pushguard incidents care-20260511-1 --draft > post-mortem.md
  pushguard incidents care-20260511-1 --contain --reason 'retry storm, see #4711'`
}

func (c *IncidentsCmd) Run(p *Process) error {
	action := ""
	for name, on := range map[string]bool{"contain": c.Contain, "release": c.Release, "accept": c.Accept, "ack": c.Ack} {
		if on {
			action = name
		}
	}
	if c.ID == "" {
		if action != "" || c.Draft {
			return Usage(errors.New("say which incident; pushguard incidents lists them"))
		}
		return c.list(p)
	}
	path := "/api/v1/incidents/" + url.PathEscape(c.ID)
	if action != "" {
		return c.act(p, path, action)
	}
	var in ops.Incident
	if err := c.call(p.Ctx, "GET", path, nil, &in); err != nil {
		return err
	}
	switch {
	case c.JSON:
		return printJSON(p.Stdout, in)
	case c.Draft:
		_, err := io.WriteString(p.Stdout, in.Markdown(time.Now()))
		return err
	}
	return printIncident(p.Stdout, in)
}

func (c *IncidentsCmd) list(p *Process) error {
	var list []ops.Incident
	if err := c.call(p.Ctx, "GET", "/api/v1/incidents", nil, &list); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.Stdout, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(p.Stdout, "no incidents")
		return err
	}
	tw := tabwriter.NewWriter(p.Stdout, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "id\taccount\tstate\tbegan\taction\twhat")
	for _, in := range list {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", in.ID, in.Account, in.State, in.StartedAt.Format(time.RFC3339), in.Action, visible(in.Headline()))
	}
	return tw.Flush()
}

func (c *IncidentsCmd) act(p *Process, path, action string) error {
	order := ops.IncidentOrder{Reason: c.Reason, By: operator()}
	if c.DryRun {
		var effect ops.Effect
		if err := c.call(p.Ctx, "POST", path+"/"+action+"?dry_run=1", order, &effect); err != nil {
			return err
		}
		printEffect(p.Stdout, effect)
		return nil
	}
	var in ops.Incident
	if err := c.call(p.Ctx, "POST", path+"/"+action, order, &in); err != nil {
		return err
	}
	_, err := fmt.Fprintf(p.Stdout, "%s: incident %s is %s, action %s\n", action, in.ID, in.State, in.Action)
	return err
}

func printIncident(w io.Writer, in ops.Incident) error {
	fmt.Fprintf(w, "incident %s, account %s, %s, action %s\n%s\n", in.ID, in.Account, in.State, in.Action, visible(in.Headline()))
	fmt.Fprintf(w, "began %s, noticed %s later; %s messages beyond the usual\n", in.StartedAt.Format(time.RFC3339), words.Span(in.DetectedAt.Sub(in.StartedAt).Round(time.Second)), Grouped(in.Excess))
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "\nshare of the excess\tcaller\tevent\tchannel\tpayload")
	for _, c := range in.Culprits {
		fmt.Fprintf(tw, "%.0f%%\t%s\t%s\t%s\t%s\n", c.Share*100, visible(cmp.Or(c.Caller, "*")), visible(cmp.Or(c.Event, "*")), visible(cmp.Or(c.Channel, "*")), visible(cmp.Or(c.Payload, "*")))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, e := range in.Timeline {
		fmt.Fprintf(w, "%s  %s\n", e.At.UTC().Format("15:04:05"), visible(e.Text))
	}
	return nil
}
