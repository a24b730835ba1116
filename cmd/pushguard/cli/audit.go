package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/pushguard/pushguard/cmd/pushguard/ops"
)

// AuditCmd prints the audit trail.
type AuditCmd struct {
	Account string `help:"Only this account." placeholder:"NAME"`
	Limit   int    `help:"How many lines, the newest." default:"50" placeholder:"N"`
	JSON    bool   `help:"Print the admin API's JSON as it is." name:"json"`
	adminFlags
}

// Help is what --help adds.
func (AuditCmd) Help() string {
	return "Who moved which lever, when and why; from the store, the same on every replica.\n\nExamples:\n  pushguard audit\n  pushguard audit --account care --limit 10 --json"
}

// Run asks for the trail of each account.
func (c *AuditCmd) Run(p *Process) error {
	if c.Limit < 1 || c.Limit > 1000 {
		return Usage(fmt.Errorf("--limit %d: from 1 to 1000", c.Limit))
	}
	q := url.Values{"account": {c.Account}, "limit": {fmt.Sprint(c.Limit)}}
	all := []ops.AuditEntry{}
	if err := c.call(p.Ctx, "GET", "/api/v1/audit?"+q.Encode(), nil, &all); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(p.Stdout, all)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(p.Stdout, "no lever was moved yet")
		return err
	}
	columns := []column{{title: "what"}, {title: "when (UTC)"}, {title: "account", drop: 3}, {title: "who", drop: 1}, {title: "why", drop: 2}, {title: "before -> after", drop: 4}}
	for _, e := range all {
		change := ""
		if e.Before != "" || e.After != "" {
			change = cmp.Or(e.Before, "-") + " -> " + cmp.Or(e.After, "-")
		}
		for i, s := range []string{e.What, e.At.UTC().Format("2006-01-02 15:04:05"), e.Account, e.Who, e.Why, change} {
			columns[i].cells = append(columns[i].cells, visible(s))
		}
	}
	var b strings.Builder
	windowOf(p.Stdout, p.Getenv).table(&b, columns)
	_, err := io.WriteString(p.Stdout, b.String())
	return err
}
