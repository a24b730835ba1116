package guard

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	log, _, err := NewLevelLogger(w, format, level)
	return log, err
}

// NewLevelLogger returns beside the logger what sets its level while it is in
// use.
func NewLevelLogger(w io.Writer, format, level string) (*slog.Logger, *slog.LevelVar, error) {
	at := &slog.LevelVar{}
	if err := setLevel(at, level); err != nil {
		return nil, nil, err
	}
	opts := &slog.HandlerOptions{Level: at}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts)), at, nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), at, nil
}

func setLevel(at *slog.LevelVar, level string) error {
	var l slog.Level
	if level != "" {
		if err := l.UnmarshalText([]byte(strings.ToUpper(level))); err != nil {
			return fmt.Errorf("log level %q: %w", level, err)
		}
	}
	at.Set(l)
	return nil
}
