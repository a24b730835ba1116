package config

import (
	"errors"
	"strings"
)

// The file in which ParseRule reads a rule: everything that a rule needs around
// it, and nothing that can be wrong.
const aroundRule = `accounts:
  - name: a
    plan: sandbox
    apps: [ { id: "1", key: k, secret: s, cluster: eu } ]
    rules:
      -
`

const ruleIndent = "        "

// ParseRule reads one rule, written as an item of rules is: alone, or with its
// "- " before it. Mistakes are told with line and column in text. References
// such as ${NAME} are refused: the text may come from somebody who may look and
// not more, and what they refer to is not for him.
func ParseRule(text string) (Rule, error) {
	const name = "rule"
	one := func(line int, msg, hint string) (Rule, error) {
		return Rule{}, Problems{{File: name, Line: line, Column: 1, Message: msg, Hint: hint}}
	}
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	switch {
	case strings.TrimSpace(text) == "":
		return one(1, "the rule is empty", `write it as under rules: { match: { event: "notification.*" }, dedupe: 2s }`)
	case len(text) > 16<<10:
		return one(1, "the rule is longer than 16 KiB", "try one rule at a time")
	case strings.Contains(text, "${"):
		return one(1+strings.Count(text[:strings.Index(text, "${")], "\n"), "the rule holds a reference", "write the value itself; references are resolved in the file only")
	}
	// An item as copied from the file: its dash and indentation are taken away,
	// column for column.
	lines := strings.Split(strings.TrimRight(text, "\n "), "\n")
	for i, l := range lines {
		if body := strings.TrimLeft(l, " "); body != "" {
			if strings.HasPrefix(body, "- ") {
				lines[i] = strings.Repeat(" ", len(l)-len(body)) + "  " + body[2:]
			}
			break
		}
	}
	for i := range lines {
		lines[i] = ruleIndent + lines[i]
	}
	around := strings.Count(aroundRule, "\n")
	cfg, err := Parse(name, []byte(aroundRule+strings.Join(lines, "\n")+"\n"), func(string) string { return "" })
	var problems Problems
	if errors.As(err, &problems) {
		for i := range problems {
			p := &problems[i]
			p.Line, p.Column = max(p.Line-around, 1), max(p.Column-len(ruleIndent), 1)
			p.Path = strings.TrimPrefix(strings.TrimPrefix(p.Path, "accounts[0].rules[0]"), ".")
			p.Message = strings.ReplaceAll(strings.ReplaceAll(p.Message, "accounts[0].rules[0].", ""), "accounts[0].rules[0]", "the rule")
			p.Excerpt = ""
		}
		return Rule{}, problems
	}
	if err != nil {
		return Rule{}, err
	}
	if len(cfg.Accounts) != 1 || len(cfg.Accounts[0].Rules) != 1 {
		return one(1, "this is not one rule", "write match:, and what is to be done with what matches")
	}
	return cfg.Accounts[0].Rules[0], nil
}
