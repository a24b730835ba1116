package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/pushguard/pushguard/cmd/pushguard/version"
)

type ManCmd struct{}

func (ManCmd) Help() string {
	return "Examples:\n  pushguard man | man -l -\n  pushguard man > /usr/local/share/man/man1/pushguard.1"
}

// Run prints the manual as man(7) reads it, of the same model and the same words
// as --help.
func (ManCmd) Run(p *Process, app *kong.Application) error {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH PUSHGUARD 1 \"\" \"pushguard %s\" \"User Commands\"\n", roff(version.Build()))
	b.WriteString(".SH NAME\npushguard \\- a guard in front of Pusher Channels\n.SH SYNOPSIS\n.B pushguard\n.I COMMAND\n[\\fIFLAGS\\fR]\n")
	b.WriteString(".SH DESCRIPTION\n" + paragraphs(app.Help) + "\n.SH COMMANDS\n")
	for _, c := range wordsOf(app) {
		node := app.Node
		for _, name := range strings.Fields(c.path) {
			for _, child := range node.Children {
				if child.Name == name {
					node = child
				}
			}
		}
		if c.path == "" || len(c.subcommands) > 0 {
			continue
		}
		fmt.Fprintf(&b, ".SS pushguard %s\n%s\n", roff(usage(c)), paragraphs(node.Help))
		if detail := strings.TrimSpace(node.Detail); detail != "" {
			b.WriteString(".PP\n" + examples(detail))
		}
		for _, a := range c.args {
			fmt.Fprintf(&b, ".TP\n.I %s\n%s\n", roff(strings.ToUpper(a.Name)), roff(a.Help))
		}
		for _, f := range c.flags {
			if f.Name != "help" {
				fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(shownFlag(f)), roff(flagHelp(f)))
			}
		}
	}
	b.WriteString(`.SH EXIT STATUS
.TP
.B 0
done
.TP
.B 1
it failed, or a condition of \fBstatus \-\-fail\-if\fR or \fBload \-\-expect\fR did not hold; the reason is on standard error
.TP
.B 2
wrong usage
.SH ENVIRONMENT
.TP
.B PUSHGUARD_ADMIN, PUSHGUARD_ADMIN_TOKEN
where the admin port is, and the token for it
.TP
.B PUSHER_URL, PUSHER_APP_ID, PUSHER_KEY, PUSHER_SECRET, PUSHER_CLUSTER
the app that \fBserve\fR guards when it is given no config
.SH SIGNALS
SIGHUP reloads the config, all of it or nothing. SIGTERM and SIGINT drain: not ready, serving on for drain_delay, then out; a second one ends at once.
`)
	_, err := io.WriteString(p.Stdout, b.String())
	return err
}

func usage(c commandWords) string {
	out := c.path
	for _, a := range c.args {
		word := strings.ToUpper(a.Name)
		if !a.Required {
			word = "[" + word + "]"
		}
		out += " " + word
	}
	return out + " [FLAGS]"
}

func shownFlag(f *kong.Flag) string {
	if !takesValue(f) {
		return "--" + f.Name
	}
	value := f.PlaceHolder
	if value == "" {
		value = strings.ToUpper(f.Name)
		if f.Enum != "" {
			value = strings.Join(f.EnumSlice(), "|")
		}
	}
	return "--" + f.Name + "=" + value
}

func flagHelp(f *kong.Flag) string {
	help := f.Help
	if f.HasDefault && f.Default != "" {
		help += " Default: " + f.Default + "."
	}
	if len(f.Envs) > 0 {
		help += " Environment: " + strings.Join(f.Envs, ", ") + "."
	}
	return help
}

// roff makes text harmless: a line that begins with a dot or a quote is an
// order, a backslash begins one, and a hyphen is no minus.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

func paragraphs(s string) string {
	return strings.ReplaceAll(roff(strings.TrimSpace(s)), "\n\n", "\n.PP\n")
}

// examples keeps the lines of an example as they are.
func examples(s string) string {
	return ".nf\n" + roff(s) + "\n.fi\n"
}
