package config

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is a string that only Reveal gives away. Printing it in any way, with
// fmt, slog or an encoder, shows that it is set and no more; even where fmt
// cannot call its methods (an unexported field) it finds a pointer, not the
// text. The zero value is an empty secret.
type Secret struct{ p *string }

// NewSecret hides s.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{p: &s}
}

// Reveal is the text itself. It belongs where it is used and nowhere else.
func (s Secret) Reveal() string {
	if s.p == nil {
		return ""
	}
	return *s.p
}

// IsZero says whether the secret is empty.
func (s Secret) IsZero() bool { return s.p == nil }

// Equal compares without telling, by its time, where two secrets differ.
func (s Secret) Equal(o Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(o.Reveal())) == 1
}

// String is "[redacted]", or empty for an empty secret.
func (s Secret) String() string {
	if s.p == nil {
		return ""
	}
	return redacted
}

// GoString is String: %#v shows no more than %v.
func (s Secret) GoString() string { return s.String() }

// Format writes String for every verb, %x and %d included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText is String, for JSON, YAML and every other encoder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue is String, for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

func (s *Secret) setText(text string) error {
	*s = NewSecret(text)
	if text == "" {
		return fault{"is empty", "give it a value, or take the key out"}
	}
	return nil
}

// Secrets are one secret, or several that are valid side by side while one
// replaces another; the first is the current one.
type Secrets []Secret

// Current is the first secret, the one to sign with.
func (s Secrets) Current() Secret {
	if len(s) == 0 {
		return Secret{}
	}
	return s[0]
}
