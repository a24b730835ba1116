// Package replay runs a scenario, or a recorded trace, through the real
// limiter, quota and detector in virtual time, beside Pusher alone with its
// plan: days in seconds.
//
// A scenario is a config file with one more section, `replay:`, which says who
// sends what, what fails, and what people do. docs/replay.md has the words.
package replay

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
)

// Scenario is what is replayed.
type Scenario struct {
	Name    string
	Config  *config.Config
	Account *config.Account
	App     *config.App
	// Progress, if set, is told now and then how far a run has come in virtual time.
	Progress func(at, until time.Time)
	Section
}

// Section is the part `replay:` of the file.
type Section struct {
	// From and Until bound what is reported; the traffic begins Warmup before
	// From, so that the detector has seen days before it is judged.
	From   instant  `yaml:"from"`
	Until  instant  `yaml:"until"`
	Warmup duration `yaml:"warmup"`
	Seed   uint64   `yaml:"seed"`
	// App is the id of the app whose traffic it is; the first of the file if
	// left out.
	AppID   string   `yaml:"app"`
	Traffic []Stream `yaml:"traffic"`
	// Trace is a file of recorded publishes, relative to the scenario's.
	Trace   string   `yaml:"trace"`
	Faults  []Fault  `yaml:"faults"`
	Actions []Action `yaml:"actions"`
}

// Stream is one caller's publishes of one event.
type Stream struct {
	Caller  string   `yaml:"caller"`
	Event   string   `yaml:"event"`
	Channel channels `yaml:"channel"`
	Rate    rate     `yaml:"rate"` // publishes a second, on average where the shape is 1
	Shape   Shapes   `yaml:"shape"`
	Payload payload  `yaml:"payload"` // fresh (each its own), same, or how many are told apart
	Size    int      `yaml:"size"`    // bytes
	From    instant  `yaml:"from"`    // the scenario's if left out
	Until   instant  `yaml:"until"`
	// Incident marks the traffic that should not be: the rest is healthy, and
	// counted as such.
	Incident bool `yaml:"incident"`
}

// Fault is a time in which something does not work.
type Fault struct {
	Upstream string   `yaml:"upstream"` // failing: publishes get no answer
	Part     fraction `yaml:"part"`     // of the publishes; all if left out
	From     instant  `yaml:"from"`
	Until    instant  `yaml:"until"`
}

// Action is what a person does: at a time, or as soon as something is so.
type Action struct {
	At    instant  `yaml:"at"`
	When  *When    `yaml:"when"`
	Do    string   `yaml:"do"` // plan, usage, stop, brake, resume, note
	Plan  planWord `yaml:"plan"`
	Used  int64    `yaml:"used"`
	Why   string   `yaml:"why"`
	Only  string   `yaml:"only"`  // guarded or unguarded; both if left out
	Again bool     `yaml:"again"` // each time, not the first alone
}

// When is a condition: all that is given must hold.
type When struct {
	After instant  `yaml:"after"` // not before
	Used  fraction `yaml:"used"`  // of the plan, at least
	Rate  float64  `yaml:"rate"`  // the account's billed messages over those of the same time the day before, at least
	For   duration `yaml:"for"`   // the rate has been so that long
}

var actions = []string{"plan", "usage", "stop", "brake", "resume", "note"}

// Load reads a scenario. Mistakes are config.Problems with line and column,
// those of the config's part as the guard itself would tell them.
func Load(path string, getenv func(string) string) (*Scenario, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxScenario {
		return nil, fmt.Errorf("%s is longer than %d bytes: that is no scenario; a trace is replayed with --config", path, maxScenario)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data, getenv)
}

const maxScenario = 1 << 20

// Parse is Load of data that was read already.
func Parse(name string, data []byte, getenv func(string) string) (*Scenario, error) {
	src := strings.TrimPrefix(string(data), "\ufeff")
	s := &Scenario{Name: name}
	section, rest, err := cut(name, src)
	if err != nil {
		return nil, err
	}
	if s.Config, err = config.Parse(name, []byte(mask(rest, getenv)), getenv); err != nil {
		return nil, err
	}
	if section == nil {
		return nil, problem(name, 1, 1, "there is no section replay: in it", "add replay: with from, until and traffic; see docs/replay.md")
	}
	if err := yaml.NodeToValue(section, &s.Section, yaml.Strict()); err != nil {
		return nil, positioned(name, err)
	}
	if err := s.check(section); err != nil {
		return nil, positioned(name, err)
	}
	if s.Trace != "" && !filepath.IsAbs(s.Trace) {
		s.Trace = filepath.Join(filepath.Dir(name), s.Trace)
	}
	return s, nil
}

// cut takes the section out of the text and leaves empty lines, so that the
// places of all else stay.
func cut(name, src string) (section ast.Node, rest string, err error) {
	defer func() {
		if recover() != nil { // the parser is somebody else's
			section, rest, err = nil, "", problem(name, 1, 1, "the file is not YAML that can be read", "check it with a YAML linter")
		}
	}()
	file, err := parser.ParseBytes([]byte(src), 0)
	if err != nil {
		return nil, "", positioned(name, err)
	}
	lines := strings.Split(src, "\n")
	for _, doc := range file.Docs {
		var values []*ast.MappingValueNode
		switch m := doc.Body.(type) {
		case *ast.MappingNode:
			values = m.Values
		case *ast.MappingValueNode:
			values = []*ast.MappingValueNode{m}
		}
		for i, v := range values {
			if v.Key.GetToken().Value != "replay" {
				continue
			}
			section = v.Value
			end := len(lines)
			if i+1 < len(values) {
				end = values[i+1].Key.GetToken().Position.Line - 1
			}
			for l := v.Key.GetToken().Position.Line - 1; l < end; l++ {
				lines[l] = ""
			}
		}
	}
	return section, strings.Join(lines, "\n"), nil
}

var reference = regexp.MustCompile(`\$\{[^}]*\}`)

// mask puts something of the same length into the place of every reference that
// the environment does not answer: a replay needs no secret, and the guard's
// own config can be replayed anywhere.
func mask(src string, getenv func(string) string) string {
	n := 0
	return reference.ReplaceAllStringFunc(src, func(ref string) string {
		name := ref[2 : len(ref)-1]
		if !strings.Contains(name, ":") && getenv(name) != "" {
			return ref
		}
		n++
		filler := "unused" + strconv.Itoa(n)
		if len(filler) > len(ref) {
			filler = filler[len(filler)-len(ref):]
		}
		return filler + strings.Repeat("x", len(ref)-len(filler))
	})
}

// check fills in what was left out and finds what the types do not.
func (s *Scenario) check(n ast.Node) error {
	for i := range s.Config.Accounts {
		for j := range s.Config.Accounts[i].Apps {
			app := &s.Config.Accounts[i].Apps[j]
			if s.App == nil && (s.AppID == "" || s.AppID == app.ID) {
				s.Account, s.App = &s.Config.Accounts[i], app
			}
		}
	}
	from, until := time.Time(s.From), time.Time(s.Until)
	switch {
	case s.App == nil:
		return at(n, fmt.Sprintf("replay.app %q is no app of this file", clip(s.AppID)), "give the id of one under accounts")
	case s.Trace == "" && len(s.Traffic) == 0:
		return at(n, "replay has neither traffic nor a trace", "add traffic: with callers, or trace: FILE")
	case s.Trace != "" && len(s.Traffic) > 0:
		return at(n, "replay has both traffic and a trace", "keep one of them")
	case s.Trace != "":
		// A trace brings its own times.
	case from.IsZero() || until.IsZero():
		return at(n, "replay needs from and until", "write times in UTC, as 2026-03-10T00:00:00Z")
	case !from.Before(until):
		return at(n, "replay.until is not after replay.from", "")
	case until.Sub(from)+time.Duration(s.Warmup) > maxSpan:
		return at(n, fmt.Sprintf("replay spans more than %d days", maxSpan/24/time.Hour), "give less")
	}
	for i := range s.Traffic {
		t := &s.Traffic[i]
		where := fmt.Sprintf("replay.traffic[%d]", i)
		switch {
		case t.Caller == "" || t.Event == "" || len(t.Channel.names) == 0:
			return at(n, where+" needs caller, event and channel", "")
		case t.Rate <= 0:
			return at(n, where+" needs a rate", "write it as 0.5/s, 30/m or 1000/h")
		}
		if t.Payload == 0 {
			t.Payload = fresh
		}
		if t.Size == 0 {
			t.Size = 256
		}
		if time.Time(t.From).IsZero() {
			t.From = instant(from.Add(-time.Duration(s.Warmup)))
		}
		if time.Time(t.Until).IsZero() {
			t.Until = s.Until
		}
	}
	for i := range s.Faults {
		f := &s.Faults[i]
		if f.Upstream != "failing" || time.Time(f.From).IsZero() || time.Time(f.Until).IsZero() {
			return at(n, fmt.Sprintf("replay.faults[%d] needs upstream: failing, from and until", i), "")
		}
		if f.Part == 0 {
			f.Part = 1
		}
	}
	for i := range s.Actions {
		if err := s.Actions[i].check(n, i); err != nil {
			return err
		}
	}
	return nil
}

const maxSpan = 400 * 24 * time.Hour

func (a *Action) check(n ast.Node, i int) error {
	where := fmt.Sprintf("replay.actions[%d]", i)
	known := false
	for _, w := range actions {
		known = known || a.Do == w
	}
	switch {
	case !known:
		return at(n, fmt.Sprintf("%s: do is %q", where, clip(a.Do)), "it can be "+strings.Join(actions, ", "))
	case time.Time(a.At).IsZero() == (a.When == nil):
		return at(n, where+" needs either at or when", "")
	case a.Do == "plan" && a.Plan == 0:
		return at(n, where+" needs plan", "write plan: business, or a number of messages a day")
	case a.Only != "" && a.Only != "guarded" && a.Only != "unguarded":
		return at(n, fmt.Sprintf("%s: only is %q", where, clip(a.Only)), "it can be guarded or unguarded")
	case a.When != nil && a.When.Used == 0 && a.When.Rate == 0 && time.Time(a.When.After).IsZero():
		return at(n, where+".when is empty", "give used, rate or after")
	}
	return nil
}

// LoadConfig reads the config's part of a scenario or of a config file, without
// need of its secrets.
func LoadConfig(path string, getenv func(string) string) (*config.Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	_, rest, err := cut(path, strings.TrimPrefix(string(data), "\ufeff"))
	if err != nil {
		return nil, err
	}
	return config.Parse(path, []byte(mask(rest, getenv)), getenv)
}

// OfTrace is a scenario of a recorded trace under a config. app names whose
// publishes are replayed; empty is the app of the trace's first publish.
func OfTrace(configPath, tracePath, app string, getenv func(string) string) (*Scenario, error) {
	cfg, err := LoadConfig(configPath, getenv)
	if err != nil {
		return nil, err
	}
	if app == "" {
		if app, err = firstApp(tracePath); err != nil {
			return nil, err
		}
	}
	s := &Scenario{Name: tracePath, Config: cfg}
	s.Trace = tracePath
	for i := range cfg.Accounts {
		for j := range cfg.Accounts[i].Apps {
			if a := &cfg.Accounts[i].Apps[j]; a.ID == app || app == "" {
				s.Account, s.App = &cfg.Accounts[i], a
				return s, nil
			}
		}
	}
	return nil, fmt.Errorf("%s has no app %s, which %s is of", configPath, app, tracePath)
}
