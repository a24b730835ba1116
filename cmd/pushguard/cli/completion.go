package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type CompletionCmd struct {
	Shell string `arg:"" help:"bash, zsh or fish." enum:"bash,zsh,fish"`
}

func (CompletionCmd) Help() string {
	return `Examples:
  source <(pushguard completion bash)
  pushguard completion zsh > "${fpath[1]}/_pushguard"
  pushguard completion fish > ~/.config/fish/completions/pushguard.fish`
}

// Run prints what the shell reads. It is made of the same model that parses the
// command line, so it cannot tell of a flag that is not there.
func (c *CompletionCmd) Run(p *Process, app *kong.Application) error {
	words := wordsOf(app)
	switch c.Shell {
	case "zsh":
		return completeZsh(p.Stdout, words)
	case "fish":
		return completeFish(p.Stdout, words)
	}
	return completeBash(p.Stdout, words)
}

// commandWords are what can follow one command.
type commandWords struct {
	path        string // "brake on"; empty: pushguard itself
	subcommands []*kong.Node
	flags       []*kong.Flag
	args        []*kong.Positional
}

func wordsOf(app *kong.Application) (all []commandWords) {
	var walk func(n *kong.Node, path string, above []*kong.Flag)
	walk = func(n *kong.Node, path string, above []*kong.Flag) {
		w := commandWords{path: path, args: n.Positional}
		w.flags = append(w.flags, above...)
		for _, f := range n.Flags {
			if !f.Hidden && !slices.Contains(w.flags, f) {
				w.flags = append(w.flags, f)
			}
		}
		slices.SortFunc(w.flags, func(a, b *kong.Flag) int { return cmp.Compare(a.Name, b.Name) })
		for _, child := range n.Children {
			if !child.Hidden && child.Type == kong.CommandNode {
				w.subcommands = append(w.subcommands, child)
			}
		}
		all = append(all, w)
		for _, child := range w.subcommands {
			walk(child, strings.TrimSpace(path+" "+child.Name), w.flags)
		}
	}
	walk(app.Node, "", nil)
	return all
}

// wantsFile says whether a value is the name of a file.
func wantsFile(v *kong.Value) bool {
	return v.Tag != nil && (v.Tag.Type == "path" || strings.Contains(v.Tag.PlaceHolder, "FILE") || v.Name == "file")
}

func takesValue(f *kong.Flag) bool { return !f.IsBool() && !f.IsCounter() }

func completeBash(w io.Writer, words []commandWords) error {
	var b strings.Builder
	b.WriteString("# bash completion for pushguard\n_pushguard() {\n\tlocal cur prev path word\n\tCOMPREPLY=()\n\tcur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path=\n")
	// bash takes --allow=n apart at the equals sign.
	b.WriteString("\tif [ \"$cur\" = = ]; then cur=; elif [ \"$prev\" = = ] && [ \"$COMP_CWORD\" -ge 2 ]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi\n")
	b.WriteString("\tfor word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n\t\tcase \"$path $word\" in\n")
	for _, c := range words {
		if c.path == "" {
			continue
		}
		parent, name := "", c.path
		if i := strings.LastIndexByte(c.path, ' '); i >= 0 {
			parent, name = c.path[:i], c.path[i+1:]
		}
		fmt.Fprintf(&b, "\t\t%q) path=%q ;;\n", parent+" "+name, c.path)
	}
	b.WriteString("\t\tesac\n\tdone\n\tcase \"$path $prev\" in\n")
	for _, c := range words {
		for _, f := range c.flags {
			key := c.path + " --" + f.Name
			switch {
			case f.Enum != "":
				fmt.Fprintf(&b, "\t%q) COMPREPLY=($(compgen -W %q -- \"$cur\")); return ;;\n", key, strings.Join(f.EnumSlice(), " "))
			case takesValue(f) && wantsFile(f.Value):
				fmt.Fprintf(&b, "\t%q) compopt -o default 2>/dev/null; return ;;\n", key)
			case takesValue(f):
				fmt.Fprintf(&b, "\t%q) return ;;\n", key)
			}
		}
	}
	b.WriteString("\tesac\n\tcase \"$path\" in\n")
	for _, c := range words {
		var names []string
		for _, s := range c.subcommands {
			names = append(names, s.Name)
		}
		for _, a := range c.args {
			names = append(names, a.EnumSlice()...)
		}
		var flags []string
		for _, f := range c.flags {
			flags = append(flags, "--"+f.Name)
		}
		fmt.Fprintf(&b, "\t%q)\n\t\tif [[ $cur == -* ]]; then COMPREPLY=($(compgen -W %q -- \"$cur\")); return; fi\n", c.path, strings.Join(flags, " "))
		if len(names) > 0 {
			fmt.Fprintf(&b, "\t\tCOMPREPLY=($(compgen -W %q -- \"$cur\"))\n", strings.Join(names, " "))
		} else if slices.ContainsFunc(c.args, func(a *kong.Positional) bool { return wantsFile(a) }) {
			b.WriteString("\t\tcompopt -o default 2>/dev/null\n")
		}
		b.WriteString("\t\t;;\n")
	}
	b.WriteString("\tesac\n}\ncomplete -F _pushguard pushguard\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// quoteShell makes one word of s for zsh and fish.
func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// oneLine is the first sentence of a help.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if i := strings.Index(s, ". "); i > 0 {
		s = s[:i]
	}
	return strings.TrimSuffix(s, ".")
}

func completeZsh(w io.Writer, words []commandWords) error {
	var b strings.Builder
	b.WriteString("#compdef pushguard\n# zsh completion for pushguard\n_pushguard() {\n\tlocal path= word i\n\tfor ((i = 2; i < CURRENT; i++)); do\n\t\tcase \"$path ${words[i]}\" in\n")
	for _, c := range words {
		if c.path != "" {
			parent, name := "", c.path
			if i := strings.LastIndexByte(c.path, ' '); i >= 0 {
				parent, name = c.path[:i], c.path[i+1:]
			}
			fmt.Fprintf(&b, "\t\t%s) path=%s ;;\n", quoteShell(parent+" "+name), quoteShell(c.path))
		}
	}
	b.WriteString("\t\tesac\n\tdone\n\tlocal -a list\n\tcase \"$path ${words[CURRENT-1]}\" in\n")
	for _, c := range words {
		for _, f := range c.flags {
			key := quoteShell(c.path + " --" + f.Name)
			switch {
			case f.Enum != "":
				fmt.Fprintf(&b, "\t%s) compadd -- %s; return ;;\n", key, strings.Join(f.EnumSlice(), " "))
			case takesValue(f) && wantsFile(f.Value):
				fmt.Fprintf(&b, "\t%s) _files; return ;;\n", key)
			case takesValue(f):
				fmt.Fprintf(&b, "\t%s) return ;;\n", key)
			}
		}
	}
	b.WriteString("\tesac\n\tcase \"$path\" in\n")
	entry := func(name, help string) string {
		return quoteShell(strings.ReplaceAll(name, ":", `\:`) + ":" + oneLine(help))
	}
	for _, c := range words {
		fmt.Fprintf(&b, "\t%s)\n\t\tif [[ ${words[CURRENT]} == -* ]]; then\n\t\t\tlist=(", quoteShell(c.path))
		for _, f := range c.flags {
			b.WriteString("\n\t\t\t\t" + entry("--"+f.Name, f.Help))
		}
		b.WriteString(")\n\t\t\t_describe flag list\n\t\telse\n")
		var names []string
		for _, s := range c.subcommands {
			names = append(names, entry(s.Name, s.Help))
		}
		for _, a := range c.args {
			for _, v := range a.EnumSlice() {
				names = append(names, entry(v, ""))
			}
		}
		switch {
		case len(names) > 0:
			b.WriteString("\t\t\tlist=(\n\t\t\t\t" + strings.Join(names, "\n\t\t\t\t") + ")\n\t\t\t_describe command list\n")
		case slices.ContainsFunc(c.args, func(a *kong.Positional) bool { return wantsFile(a) }):
			b.WriteString("\t\t\t_files\n")
		default:
			b.WriteString("\t\t\t:\n")
		}
		b.WriteString("\t\tfi\n\t\t;;\n")
	}
	b.WriteString("\tesac\n}\ncompdef _pushguard pushguard 2>/dev/null\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func completeFish(w io.Writer, words []commandWords) error {
	var b strings.Builder
	b.WriteString("# fish completion for pushguard\ncomplete -c pushguard -f\n")
	for _, c := range words {
		when := "__fish_use_subcommand"
		if c.path != "" {
			var parts []string
			for _, word := range strings.Fields(c.path) {
				parts = append(parts, "__fish_seen_subcommand_from "+word)
			}
			when = strings.Join(parts, "; and ")
		}
		for _, s := range c.subcommands {
			here := when
			if c.path != "" {
				var names []string
				for _, o := range c.subcommands {
					names = append(names, o.Name)
				}
				here += "; and not __fish_seen_subcommand_from " + strings.Join(names, " ")
			}
			fmt.Fprintf(&b, "complete -c pushguard -n %s -a %s -d %s\n", quoteShell(here), s.Name, quoteShell(oneLine(s.Help)))
		}
		for _, a := range c.args {
			for _, v := range a.EnumSlice() {
				fmt.Fprintf(&b, "complete -c pushguard -n %s -a %s\n", quoteShell(when), quoteShell(v))
			}
			if wantsFile(a) {
				fmt.Fprintf(&b, "complete -c pushguard -n %s -F\n", quoteShell(when))
			}
		}
		for _, f := range c.flags {
			fmt.Fprintf(&b, "complete -c pushguard -n %s -l %s -d %s", quoteShell(when), f.Name, quoteShell(oneLine(f.Help)))
			switch {
			case f.Enum != "":
				fmt.Fprintf(&b, " -x -a %s", quoteShell(strings.Join(f.EnumSlice(), " ")))
			case takesValue(f) && wantsFile(f.Value):
				b.WriteString(" -r -F")
			case takesValue(f):
				b.WriteString(" -x")
			}
			b.WriteByte('\n')
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
