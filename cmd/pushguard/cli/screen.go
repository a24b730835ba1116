package cli

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

// window is how much room the output has; zero fields are no bound.
type window struct{ width, height int }

// windowOf asks the terminal, and COLUMNS and LINES where it does not say. An
// output that is no terminal has no bounds, unless COLUMNS sets one.
func windowOf(w io.Writer, getenv func(string) string) window {
	var out window
	if f, ok := w.(*os.File); ok && IsTerminal(w) {
		out.width, out.height = terminalSize(f)
	}
	if n, err := strconv.Atoi(getenv("COLUMNS")); err == nil && n > 0 && out.width == 0 {
		out.width = n
	}
	if n, err := strconv.Atoi(getenv("LINES")); err == nil && n > 0 && out.height == 0 {
		out.height = n
	}
	if out.width > 0 {
		out.width = max(out.width, 20)
	}
	return out
}

// cutTo shortens s to n characters.
func cutTo(s string, n int) string {
	if n <= 0 || utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	return string(r[:n-1]) + "…"
}

// wrapped writes a label and its text, broken at spaces, with what follows
// indented below the text.
func (w window) wrapped(b *strings.Builder, label, text string) {
	const indent = 11
	head := "  " + label + strings.Repeat(" ", max(indent-2-len(label), 1))
	if w.width == 0 {
		b.WriteString(head + text + "\n")
		return
	}
	room := max(w.width-indent, 12)
	line, used := head, 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		for used > 0 && used+1+n > room || used == 0 && n > room {
			if used == 0 { // a word longer than the line
				r := []rune(word)
				b.WriteString(line + string(r[:room]) + "\n")
				word, n = string(r[room:]), n-room
			} else {
				b.WriteString(line + "\n")
			}
			line, used = strings.Repeat(" ", indent), 0
		}
		if used > 0 {
			line += " "
			used++
		}
		line += word
		used += n
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}

// column is one column of a table: where there is no room for all, those with
// the highest drop go first.
type column struct {
	title string
	right bool
	drop  int // 0: never
	cells []string
}

// table writes columns side by side. What does not fit loses its least
// important columns, then the end of its first.
func (w window) table(b *strings.Builder, columns []column) {
	width := func(c column) int {
		n := utf8.RuneCountInString(c.title)
		for _, s := range c.cells {
			n = max(n, utf8.RuneCountInString(s))
		}
		return n
	}
	total := func() int {
		n := 0
		for _, c := range columns {
			n += width(c) + 2
		}
		return n
	}
	for w.width > 0 && total() > w.width {
		worst := -1
		for i, c := range columns {
			if c.drop > 0 && (worst < 0 || c.drop > columns[worst].drop) {
				worst = i
			}
		}
		if worst < 0 {
			first := &columns[0]
			room := max(width(*first)-(total()-w.width), 4)
			first.title = cutTo(first.title, room)
			for i := range first.cells {
				first.cells[i] = cutTo(first.cells[i], room)
			}
			break
		}
		columns = append(columns[:worst:worst], columns[worst+1:]...)
	}
	row := func(text func(column) string) {
		line := ""
		for _, c := range columns {
			s := text(c)
			pad := strings.Repeat(" ", max(width(c)-utf8.RuneCountInString(s), 0))
			if c.right {
				s = pad + s
			} else {
				s += pad
			}
			line += "  " + s
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	row(func(c column) string { return c.title })
	if len(columns) == 0 {
		return
	}
	for i := range columns[0].cells {
		row(func(c column) string { return c.cells[i] })
	}
}
