package quota

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// Aim is a brake on a part of an account: what matches all of its patterns is stopped, or held to a rate of all replicas
// together. Patterns are globs as in rules; an empty one matches everything.
type Aim struct {
	ID        string    `json:"id"`
	App       string    `json:"app,omitempty"`
	Caller    string    `json:"caller,omitempty"`
	Event     string    `json:"event,omitempty"`
	Channel   string    `json:"channel,omitempty"` // one channel of a publish is enough
	Allow     string    `json:"allow"`             // what still passes: "critical" or "none"
	To        string    `json:"to,omitempty"`      // as a person wrote it; empty: stopped
	PerSecond float64   `json:"per_s,omitempty"`
	Burst     int       `json:"burst,omitempty"`
	Reason    string    `json:"reason"`
	By        string    `json:"by"`
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until"` // zero: until it is lifted
}

// Aims are the aimed brakes of an account at one time. They are not changed: a change makes new ones.
type Aims struct{ List []Aim }

// AimsMost bounds the aimed brakes of an account: each publish looks at all of them.
const AimsMost = 64

// Over says whether the brake's time has passed.
func (a *Aim) Over(now time.Time) bool { return !a.Until.IsZero() && !now.Before(a.Until) }

// What says for people what it is aimed at and what it does.
func (a *Aim) What() string {
	var parts []string
	for _, p := range [][2]string{{"app", a.App}, {"caller", a.Caller}, {"event", a.Event}, {"channel", a.Channel}} {
		if p[1] != "" {
			parts = append(parts, p[0]+" "+p[1])
		}
	}
	s := strings.Join(parts, ", ") + ": "
	if a.To != "" {
		s += "held to " + a.To
	} else {
		s += "stopped"
	}
	if a.Allow == "critical" {
		s += ", critical passes"
	}
	if !a.Until.IsZero() {
		s += ", until " + a.Until.UTC().Format(time.RFC3339)
	}
	return s
}

func (a *Aim) sameTarget(b *Aim) bool {
	return a.App == b.App && a.Caller == b.Caller && a.Event == b.Event && a.Channel == b.Channel
}

// ErrMilder refuses a brake that would replace a stricter one: one that lets less pass, or lasts longer.
var ErrMilder = errors.New("a stricter brake is on")

// milder says in which respect a new brake is milder than the one that it would replace; empty: in none.
func milder(oldAllow, newAllow string, oldRate, newRate float64, oldUntil, newUntil time.Time) string {
	switch {
	case oldAllow == "none" && newAllow != "none":
		return "it lets nothing pass, this one what is critical"
	case newRate > oldRate:
		return "it lets less pass"
	case oldUntil.IsZero() && !newUntil.IsZero():
		return "it has no end"
	case !newUntil.IsZero() && newUntil.Before(oldUntil):
		return "it lasts until " + oldUntil.UTC().Format(time.RFC3339)
	}
	return ""
}

// brakeForm is what the store keeps: the account's brake with the aimed ones in it. An earlier release reads the brake
// alone; where there is only an aimed one it sees a brake that is over.
type brakeForm struct {
	Brake
	None bool  `json:"none,omitempty"` // there is no brake on the whole account
	Aims []Aim `json:"aims,omitempty"`
}

func formBrake(b *Brake, aims []Aim) (string, error) {
	if b == nil && len(aims) == 0 {
		return "", nil
	}
	f := brakeForm{Aims: aims}
	if b != nil {
		f.Brake = *b
	} else {
		f.None, f.Brake = true, Brake{Allow: "critical", Until: time.Unix(1, 0).UTC()}
	}
	text, err := store.Pack(f)
	return string(text), err
}

// parseBrake is the inverse of formBrake.
func parseBrake(text string) (*Brake, *Aims, error) {
	if text == "" {
		return nil, nil, nil
	}
	var f brakeForm
	if err := store.Unpack([]byte(text), &f); err != nil {
		return nil, nil, err
	}
	var aims *Aims
	if len(f.Aims) > 0 {
		aims = &Aims{f.Aims}
	}
	if f.None {
		return nil, aims, nil
	}
	return &f.Brake, aims, nil
}

// CurrentAims are the aimed brakes, those included whose time has passed; nil: there are none. For the hot path.
func (l *Ledger) CurrentAims() *Aims { return l.aims.Load() }

// aimsNow copies those whose time has not passed.
func (l *Ledger) aimsNow(now time.Time) []Aim {
	var out []Aim
	if set := l.aims.Load(); set != nil {
		for i := range set.List {
			if !set.List[i].Over(now) {
				out = append(out, set.List[i])
			}
		}
	}
	return out
}

// refusal is an order that was not carried out because of what it said.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// moveBrake changes the brakes, on all replicas, so that none is lost that somebody else pulls at the same moment.
// ErrHereAlone is as with SetBrake.
func (l *Ledger) moveBrake(ctx context.Context, now time.Time, change func(b *Brake, aims []Aim) (*Brake, []Aim, *store.AuditEntry, error)) error {
	form := func() (string, *store.AuditEntry, error) {
		b, aims, entry, err := change(l.CurrentBrake(now), l.aimsNow(now))
		if err != nil {
			return "", nil, refusal{err}
		}
		text, err := formBrake(b, aims)
		return text, entry, err
	}
	err := error(nil)
	if v := l.view.Load(); !v.up && v.err != "" {
		err = errors.New("brake: the store is out of reach: " + v.err) // nobody waits for it
	}
	for try := 0; err == nil && try < 5; try++ {
		moved := false
		err = l.lever(ctx, now, "brake", func(ctx context.Context, at store.At) error {
			text, entry, err := form()
			if err != nil {
				return err
			}
			moved, err = l.st.SwapBrake(ctx, at, l.brakeJSON, text, entry)
			return err
		})
		if err != nil || moved {
			break
		}
		if try < 4 {
			continue
		}
		err = errors.New("brake: somebody else moves it at the same time; try again")
	}
	var no refusal
	if err == nil || errors.As(err, &no) {
		if err != nil {
			return no.error
		}
		return nil
	}
	text, entry, ferr := form()
	if ferr != nil {
		if errors.As(ferr, &no) {
			return no.error
		}
		return ferr
	}
	return l.brakeHere(ctx, text, entry, err)
}

// SetAim pulls an aimed brake, and returns it with its ID. One on the same target is replaced if the new one is at
// least as strict, or replace is set; else the error is ErrMilder.
func (l *Ledger) SetAim(ctx context.Context, now time.Time, aim Aim, replace bool) (Aim, error) {
	if aim.App == "" && aim.Caller == "" && aim.Event == "" && aim.Channel == "" {
		return aim, errors.New("an aimed brake needs an app, a caller, an event or a channel")
	}
	if aim.Allow != "critical" && aim.Allow != "none" {
		return aim, fmt.Errorf("brake: allow is %q; it can be critical or none", aim.Allow)
	}
	if aim.Since.IsZero() {
		aim.Since = now.UTC()
	}
	err := l.moveBrake(ctx, now, func(b *Brake, aims []Aim) (*Brake, []Aim, *store.AuditEntry, error) {
		entry := &store.AuditEntry{At: now.UTC(), Who: aim.By, What: "brake on", Why: aim.Reason}
		at := slices.IndexFunc(aims, func(x Aim) bool { return x.sameTarget(&aim) })
		if at >= 0 {
			old := &aims[at]
			if why := milder(old.Allow, aim.Allow, old.PerSecond, aim.PerSecond, old.Until, aim.Until); why != "" && !replace {
				return nil, nil, nil, fmt.Errorf("%w: %s on the same target, pulled by %s, and %s. Replace it (--replace), or lift it first", ErrMilder, old.ID, cmp.Or(old.By, "somebody"), why)
			}
			aim.ID, entry.Before = old.ID, old.What()
			aims[at] = aim
		} else {
			if len(aims) >= AimsMost {
				return nil, nil, nil, fmt.Errorf("there are %d aimed brakes already; lift one first", AimsMost)
			}
			n := 0
			for i := range aims {
				if x, err := strconv.Atoi(strings.TrimPrefix(aims[i].ID, "b")); err == nil {
					n = max(n, x)
				}
			}
			aim.ID = "b" + strconv.Itoa(n%math.MaxInt32+1)
			aims = append(aims, aim)
		}
		entry.After = aim.ID + " " + aim.What()
		return b, aims, entry, nil
	})
	return aim, err
}

// LiftAims lifts the aimed brake of that ID, or all of them where id is "all".
func (l *Ledger) LiftAims(ctx context.Context, now time.Time, id, who, why string) error {
	return l.moveBrake(ctx, now, func(b *Brake, aims []Aim) (*Brake, []Aim, *store.AuditEntry, error) {
		var kept []Aim
		var before []string
		for i := range aims {
			if id == "all" || aims[i].ID == id {
				before = append(before, aims[i].ID+" "+aims[i].What())
			} else {
				kept = append(kept, aims[i])
			}
		}
		if len(before) == 0 && id != "all" {
			return nil, nil, nil, fmt.Errorf("there is no brake %q; %s", id, aimNames(aims))
		}
		return b, kept, &store.AuditEntry{At: now.UTC(), Who: who, What: "brake off", Why: why, Before: strings.Join(before, "; ")}, nil
	})
}

func aimNames(aims []Aim) string {
	if len(aims) == 0 {
		return "no aimed brake is on"
	}
	var ids []string
	for i := range aims {
		ids = append(ids, aims[i].ID)
	}
	return "those that are on: " + strings.Join(ids, ", ")
}
