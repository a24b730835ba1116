package loadgen

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/pusher"
)

// loadScenario is what pushguard load does: streams side by side, each with its
// phases one after the other.
type loadScenario struct {
	// Target is a data port as http://host:port.
	Target string `yaml:"target"`
	// LoadTest marks every publish, so that a guard sends none of them.
	LoadTest bool `yaml:"load_test"`
	// Timeout is after how long a publish counts as failed.
	Timeout loadSpan `yaml:"timeout"`
	// Expect is what must hold at the end, over all streams.
	Expect  []string     `yaml:"expect"`
	Streams []loadStream `yaml:"streams"`

	uri      *fasthttp.URI
	expected []expectation
}

// loadStream is one kind of publish of one caller.
type loadStream struct {
	Name        string  `yaml:"name"`
	App         string  `yaml:"app"` // ID:KEY:SECRET; ${NAME} comes from the environment
	Event       string  `yaml:"event"`
	Channel     string  `yaml:"channel"`  // every * becomes a number below Channels
	Channels    int     `yaml:"channels"` //
	Size        int     `yaml:"size"`     // bytes of data
	Same        bool    `yaml:"same"`     // the same data every time
	Connections int     `yaml:"connections"`
	Phases      []phase `yaml:"phases"`

	id  string
	key *pusher.Key
}

// phase is a rate for a time: from From to To publishes a second, evenly.
type phase struct {
	Rate loadRate `yaml:"rate"`
	For  loadSpan `yaml:"for"`
}

type loadRate struct{ from, to float64 }

// at is publishes a second at a part of the phase, 0 to 1.
func (r loadRate) at(part float64) float64 { return r.from + (r.to-r.from)*part }

func (r loadRate) String() string {
	number := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	if r.from == r.to {
		return number(r.from) + "/s"
	}
	return number(r.from) + ".." + number(r.to) + "/s"
}

// UnmarshalText reads 100 or 100..1000.
func (r *loadRate) UnmarshalText(b []byte) error {
	number := func(s string) (float64, error) {
		f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil || f < 0 || f > 1e6 {
			return 0, fmt.Errorf("rate %q is not a number of publishes a second from 0 to 1000000", s)
		}
		return f, nil
	}
	from, to, ramp := strings.Cut(string(b), "..")
	var err error
	if r.from, err = number(from); err != nil {
		return err
	}
	r.to = r.from
	if ramp {
		r.to, err = number(to)
	}
	return err
}

// loadSpan is a duration that YAML writes as 30s.
type loadSpan time.Duration

// UnmarshalText reads 30s.
func (d *loadSpan) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v <= 0 || v > 24*time.Hour {
		return fmt.Errorf("%q is not a duration such as 30s, up to 24h", b)
	}
	*d = loadSpan(v)
	return nil
}

// parsePhases reads --rate: one number, steps, or a ramp, that share a duration.
func parsePhases(text string, length time.Duration) ([]phase, error) {
	parts := strings.Split(text, ",")
	if length <= 0 {
		return nil, errors.New("--duration must be above zero")
	}
	var out []phase
	for _, p := range parts {
		var r loadRate
		if err := r.UnmarshalText([]byte(p)); err != nil {
			return nil, err
		}
		if r.from <= 0 && r.to <= 0 {
			return nil, fmt.Errorf("rate %q is not above zero", p)
		}
		out = append(out, phase{Rate: r, For: loadSpan(length / time.Duration(len(parts)))})
	}
	return out, nil
}

const (
	mostStreams = 64
	mostPhases  = 200
)

// readLoadScenario reads a file; base and one are what it need not say.
func readLoadScenario(path string, base loadScenario, one loadStream, getenv func(string) string) (*loadScenario, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	// Read twice: the first time to see how many streams there are, so that each
	// begins as the flags say.
	var names struct {
		Streams []map[string]any `yaml:"streams"`
	}
	if err := yaml.Unmarshal(b, &names); err != nil {
		return nil, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, true))
	}
	s := base
	s.Streams = make([]loadStream, len(names.Streams))
	if err := yaml.UnmarshalWithOptions(b, &s, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, true))
	}
	for i := range s.Streams {
		st := &s.Streams[i]
		given := names.Streams[i]
		fill := func(key string, set func()) {
			if _, ok := given[key]; !ok {
				set()
			}
		}
		fill("name", func() { st.Name = "stream " + strconv.Itoa(i+1) })
		fill("app", func() { st.App = one.App })
		fill("event", func() { st.Event = one.Event })
		fill("channel", func() { st.Channel = one.Channel })
		fill("channels", func() { st.Channels = one.Channels })
		fill("size", func() { st.Size = one.Size })
		fill("same", func() { st.Same = one.Same })
		fill("connections", func() { st.Connections = one.Connections })
		var missing []string
		st.App = os.Expand(st.App, func(name string) string {
			v := getenv(name)
			if v == "" {
				missing = append(missing, name)
			}
			return v
		})
		if len(missing) > 0 {
			return nil, fmt.Errorf("%s: streams[%d].app refers to the environment variable %s, which is not set", path, i, missing[0])
		}
	}
	return &s, nil
}

func (s *loadScenario) check() error {
	if err := s.parseTarget(); err != nil {
		return err
	}
	if len(s.Streams) == 0 || len(s.Streams) > mostStreams {
		return fmt.Errorf("there must be 1 to %d streams; there are %d", mostStreams, len(s.Streams))
	}
	phases := 0
	for i := range s.Streams {
		st := &s.Streams[i]
		bad := func(format string, args ...any) error {
			return fmt.Errorf("stream %q: %s", st.Name, fmt.Sprintf(format, args...))
		}
		parts := strings.SplitN(st.App, ":", 3)
		if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
			return bad("app must be ID:KEY:SECRET")
		}
		st.id, st.key = parts[0], pusher.NewKey(parts[1], parts[2])
		switch {
		case st.Connections < 1 || st.Connections > 65536 || st.Channels < 1 || st.Size < 1 || st.Size > 10240:
			return bad("connections, channels and size must be above zero, size at most 10240")
		case len(st.Phases) == 0:
			return bad("it has no phases")
		}
		most := 0.0
		for _, p := range st.Phases {
			if p.For <= 0 {
				return bad("a phase must say for how long, as { rate: 100, for: 30s }")
			}
			most = max(most, p.Rate.from, p.Rate.to)
		}
		if most == 0 {
			return bad("no phase has a rate above zero")
		}
		phases += len(st.Phases)
	}
	if phases > mostPhases {
		return fmt.Errorf("%d phases are more than %d", phases, mostPhases)
	}
	// What nothing is said of is expected to be well: answers, and no refusals.
	speaks := func(fields ...string) bool {
		return slices.ContainsFunc(s.Expect, func(text string) bool {
			return slices.ContainsFunc(fields, func(f string) bool { return strings.HasPrefix(strings.TrimSpace(text), f) })
		})
	}
	if !speaks("answered", "errors") {
		s.Expect = append(s.Expect, "answered>=99%")
	}
	if !speaks("refused") {
		s.Expect = append(s.Expect, "refused<=1%")
	}
	for _, text := range s.Expect {
		e, err := parseExpectation(text)
		if err != nil {
			return err
		}
		s.expected = append(s.expected, e)
	}
	return nil
}

// expectation is one condition on the whole result.
type expectation struct {
	text, field, op string
	value           float64 // a part of what was due, or milliseconds
}

var expectationForm = regexp.MustCompile(`^\s*([a-z0-9.]+)\s*(<=|>=|=|<|>)\s*(\S+)\s*$`)

// parseExpectation reads p99<50ms, answered>=99%, errors<0.1%, refused=0%,
// late<1%.
func parseExpectation(text string) (e expectation, err error) {
	bad := func(why string) (expectation, error) {
		return e, fmt.Errorf("expectation %q: %s; write 'p99<50ms', 'answered>=99%%', 'errors<0.1%%', 'refused=0%%' or 'late<1%%'", text, why)
	}
	m := expectationForm.FindStringSubmatch(text)
	if m == nil {
		return bad("it is not FIELD OP VALUE")
	}
	e = expectation{text: strings.Join(m[1:], ""), field: m[1], op: m[2]}
	switch {
	case e.field == "answered" || e.field == "errors" || e.field == "refused" || e.field == "late":
		digits, ok := strings.CutSuffix(m[3], "%")
		f, err := strconv.ParseFloat(digits, 64)
		if !ok || err != nil || f < 0 || f > 100 {
			return bad("it is compared with a part of what was due, as 0.1%")
		}
		e.value = f / 100
	case isQuantile(e.field):
		d, err := time.ParseDuration(m[3])
		if err != nil || d < 0 {
			return bad("it is compared with a duration")
		}
		e.value = float64(d) / float64(time.Millisecond)
	default:
		return bad("there is no " + e.field)
	}
	return e, nil
}

func isQuantile(s string) bool {
	for _, q := range loadQuantiles {
		if s == q {
			return true
		}
	}
	return false
}

// unmet says what is instead, or nothing if it holds. answered counts answers
// below 500, errors all others; refused are 4xx.
func (e expectation) unmet(r loadNumbers) string {
	var is float64
	var shown string
	if isQuantile(e.field) {
		is = r.LatencyMS[e.field]
		shown = fmt.Sprintf("%.2f ms", is)
		if r.Answered == 0 {
			return e.field + " is not known: nothing was answered, expected " + e.text
		}
	} else {
		var over500, over400 int64
		for code, n := range r.Status {
			switch code[0] {
			case '5':
				over500 += n
			case '4':
				over400 += n
			}
		}
		n := map[string]int64{"answered": r.Answered - over500, "errors": r.Due - r.Answered + over500, "refused": over400, "late": r.Late}[e.field]
		if r.Due == 0 {
			return "nothing was due"
		}
		is = float64(n) / float64(r.Due)
		shown = fmt.Sprintf("%d of %d (%.3f%%)", n, r.Due, is*100)
	}
	holds := map[string]bool{"=": is == e.value, "<": is < e.value, "<=": is <= e.value, ">": is > e.value, ">=": is >= e.value}[e.op]
	if holds {
		return ""
	}
	return e.field + " is " + shown + ", expected " + e.text
}
