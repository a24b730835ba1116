package replay

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// Shapes is how a rate goes through time: the product of all of them, around 1.
// None is a constant rate.
type Shapes []Shape

// Shape is one of its fields.
type Shape struct {
	DayNight *DayNight `yaml:"day-night"`
	Weekly   *Weekly   `yaml:"weekly"`
	Bursts   *Bursts   `yaml:"bursts"`
	Ramp     *Ramp     `yaml:"ramp"`
	Step     *Step     `yaml:"step"`
	Double   *Double   `yaml:"double"`
}

// DayNight is a cosine over the day in UTC with a mean of 1.
type DayNight struct {
	Low  fraction `yaml:"low"`  // the night's rate over the day's highest; 25% if left out
	Peak clock    `yaml:"peak"` // when the day is highest; 13:00 if left out
}

// Weekly makes weekends quieter.
type Weekly struct {
	Weekend fraction `yaml:"weekend"` // rate on Saturday and Sunday over that of other days; 40% if left out
}

// Bursts multiply the rate for a while, again and again.
type Bursts struct {
	Every  duration `yaml:"every"`
	For    duration `yaml:"for"`
	Factor float64  `yaml:"factor"`
}

// Ramp rises in a straight line from 1, from the stream's beginning on.
type Ramp struct {
	Over duration `yaml:"over"`
	To   float64  `yaml:"to"`
}

// Step jumps, so long after the stream's beginning.
type Step struct {
	After duration `yaml:"after"`
	To    float64  `yaml:"to"`
}

// Double doubles again and again from the stream's beginning, until Max times
// what it was. With payload: same this is a retry storm.
type Double struct {
	Every duration `yaml:"every"`
	Max   float64  `yaml:"max"`
}

var presets = map[string]Shape{
	"constant":  {},
	"day-night": {DayNight: &DayNight{}},
	"weekly":    {Weekly: &Weekly{}},
}

// UnmarshalYAML reads a word, a mapping or a list of them.
func (s *Shapes) UnmarshalYAML(n ast.Node) error {
	if list, ok := n.(*ast.SequenceNode); ok {
		for _, item := range list.Values {
			var one Shapes
			if err := one.UnmarshalYAML(item); err != nil {
				return err
			}
			*s = append(*s, one...)
		}
		return nil
	}
	var one Shape
	if str, ok := n.(*ast.StringNode); ok {
		var known bool
		if one, known = presets[str.Value]; !known {
			return at(n, fmt.Sprintf("%q is no shape by itself", clip(str.Value)), "write constant, day-night or weekly, or { bursts: … }, { ramp: … }, { step: … }, { double: … }")
		}
	} else if err := yaml.NodeToValue(n, &one, yaml.Strict()); err != nil {
		return err
	}
	if err := one.check(); err != nil {
		return at(n, err.Error(), "see docs/replay.md for the shapes")
	}
	*s = append(*s, one)
	return nil
}

// check fills in what was left out.
func (s *Shape) check() error {
	if d := s.DayNight; d != nil {
		if d.Low == 0 {
			d.Low = 0.25
		}
		if d.Peak == 0 {
			d.Peak = clock(13 * time.Hour)
		}
	}
	if d := s.Weekly; d != nil && d.Weekend == 0 {
		d.Weekend = 0.4
	}
	if d := s.Bursts; d != nil && !(d.Every > 0 && d.For > 0 && d.For <= d.Every && d.Factor > 0) {
		return errors.New("bursts need every, for (not longer) and factor")
	}
	if d := s.Ramp; d != nil && !(d.Over > 0 && d.To > 0) {
		return errors.New("a ramp needs over and to")
	}
	if d := s.Step; d != nil && !(d.To > 0) {
		return errors.New("a step needs to")
	}
	if d := s.Double; d != nil && !(d.Every > 0 && d.Max >= 0) {
		return errors.New("double needs every")
	}
	return nil
}

// factor is the shape at t for a stream that began at from.
func (s Shapes) factor(t, from time.Time) float64 {
	f := 1.0
	for i := range s {
		f *= s[i].factor(t, from)
	}
	return f
}

func (s *Shape) factor(t, from time.Time) float64 {
	f := 1.0
	age := t.Sub(from)
	if d := s.DayNight; d != nil {
		of := float64((t.Unix()+86400)%86400-int64(time.Duration(d.Peak)/time.Second)) / 86400
		swing := (1 - float64(d.Low)) / (1 + float64(d.Low))
		f *= 1 + swing*math.Cos(2*math.Pi*of)
	}
	if d := s.Weekly; d != nil {
		if w := t.Weekday(); w == time.Saturday || w == time.Sunday {
			f *= float64(d.Weekend)
		}
	}
	if d := s.Bursts; d != nil && age >= 0 && age%time.Duration(d.Every) < time.Duration(d.For) {
		f *= d.Factor
	}
	if d := s.Ramp; d != nil && age > 0 {
		f *= 1 + (d.To-1)*min(1, float64(age)/float64(d.Over))
	}
	if d := s.Step; d != nil && age >= time.Duration(d.After) {
		f *= d.To
	}
	if d := s.Double; d != nil && age > 0 {
		g := math.Exp2(min(float64(age)/float64(d.Every), 60))
		if d.Max > 0 {
			g = min(g, d.Max)
		}
		f *= g
	}
	return f
}
