package replay

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/quota"
)

// The words of a scenario, each with its own form and its own complaint.
type (
	instant  time.Time
	duration time.Duration
	clock    time.Duration // since midnight UTC
	fraction float64
	rate     float64
	payload  int // how many are told apart; fresh: each is its own
	planWord int64
	channels struct {
		pattern string // as written
		names   []string
	}
)

const fresh payload = -1

func text(n ast.Node) (string, error) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	}
	return "", at(n, "must be a single value", "")
}

func (t *instant) UnmarshalYAML(n ast.Node) error {
	s, err := text(n)
	if err != nil {
		return err
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02 15:04", "2006-01-02"} {
		if v, err := time.Parse(layout, s); err == nil {
			*t = instant(v.UTC())
			return nil
		}
	}
	return at(n, fmt.Sprintf("%q is no time", clip(s)), "write it in UTC, as 2026-03-10T14:30:00Z")
}

func (d *duration) UnmarshalYAML(n ast.Node) error {
	s, err := text(n)
	if err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return at(n, fmt.Sprintf("%q is not a duration", clip(s)), "write a number with its unit, like 40m or 48h")
	}
	*d = duration(v)
	return nil
}

func (c *clock) UnmarshalYAML(n ast.Node) error {
	s, err := text(n)
	if err != nil {
		return err
	}
	v, err := time.Parse("15:04", s)
	if err != nil {
		return at(n, fmt.Sprintf("%q is no time of day", clip(s)), `write it as "13:00", in UTC`)
	}
	*c = clock(time.Duration(v.Hour())*time.Hour + time.Duration(v.Minute())*time.Minute)
	return nil
}

func (f *fraction) UnmarshalYAML(n ast.Node) error {
	s, err := text(n)
	if err != nil {
		return err
	}
	digits, ok := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if !ok || err != nil || !(v >= 0 && v <= 100) {
		return at(n, fmt.Sprintf("%q is not a percentage", clip(s)), "write it like 40%, from 0% to 100%")
	}
	*f = fraction(v / 100)
	return nil
}

var perSecond = map[string]float64{"s": 1, "m": 60, "h": 3600, "d": 86400}

func (r *rate) UnmarshalYAML(n ast.Node) error {
	s, err := text(n)
	if err != nil {
		return err
	}
	count, unit, _ := strings.Cut(s, "/")
	v, err := strconv.ParseFloat(count, 64)
	per := perSecond[unit]
	if err != nil || per == 0 || !(v > 0 && v <= 1e9) {
		return at(n, fmt.Sprintf("%q is not a rate", clip(s)), "write it like 0.5/s, 30/m, 1000/h or 40000/d")
	}
	*r = rate(v / per)
	return nil
}

func (p *payload) UnmarshalYAML(n ast.Node) error {
	s, err := text(n)
	if err != nil {
		return err
	}
	v, err := strconv.Atoi(s)
	switch {
	case s == "fresh":
		*p = fresh
	case s == "same":
		*p = 1
	case err == nil && v > 0:
		*p = payload(v)
	default:
		return at(n, fmt.Sprintf("%q is no payload", clip(s)), "write fresh, same, or how many are told apart")
	}
	return nil
}

func (p *planWord) UnmarshalYAML(n ast.Node) error {
	s, err := text(n)
	if err != nil {
		return err
	}
	if plan, ok := quota.PlanByName(s); ok {
		*p = planWord(plan.MessagesPerDay)
		return nil
	}
	v, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
	if err != nil || v <= 0 {
		return at(n, fmt.Sprintf("%q is no plan", clip(s)), "write one of "+strings.Join(quota.PlanNames(), ", ")+", or a number of messages a day")
	}
	*p = planWord(v)
	return nil
}

var span = regexp.MustCompile(`^(.*)\{(\d{1,9})\.\.(\d{1,9})\}(.*)$`)

const maxChannels = 200_000

// UnmarshalYAML reads a name, or one with a span: private-user-{1..5000}.
func (c *channels) UnmarshalYAML(n ast.Node) error {
	s, err := text(n)
	if err != nil {
		return err
	}
	c.pattern, c.names = s, []string{s}
	m := span.FindStringSubmatch(s)
	if m == nil {
		return nil
	}
	from, _ := strconv.Atoi(m[2])
	to, _ := strconv.Atoi(m[3])
	if to < from || to-from >= maxChannels {
		return at(n, fmt.Sprintf("%q spans no channels, or more than %d", clip(s), maxChannels), "write private-user-{1..5000}")
	}
	c.names = c.names[:0]
	for i := from; i <= to; i++ {
		c.names = append(c.names, m[1]+strconv.Itoa(i)+m[4])
	}
	return nil
}

// at is a mistake at a node's place; the file's name is put in later.
func at(n ast.Node, msg, hint string) error {
	p := config.Problem{Message: msg, Hint: hint, Line: 1, Column: 1}
	if t := n.GetToken(); t != nil && t.Position != nil {
		p.Line, p.Column = t.Position.Line, t.Position.Column
	}
	return p
}

func problem(name string, line, column int, msg, hint string) error {
	return config.Problems{{File: name, Line: line, Column: column, Message: msg, Hint: hint}}
}

// positioned gives a mistake of the section its file, line and column.
func positioned(name string, err error) error {
	var p config.Problem
	if errors.As(err, &p) {
		p.File = name
		return config.Problems{p}
	}
	var y yaml.Error
	if errors.As(err, &y) {
		line, column := 1, 1
		if t := y.GetToken(); t != nil && t.Position != nil {
			line, column = t.Position.Line, t.Position.Column
		}
		return problem(name, line, column, y.GetMessage(), "see docs/replay.md for the words")
	}
	return problem(name, 1, 1, err.Error(), "")
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}
