package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pushguard/pushguard/cmd/pushguard/replay"
)

// extras are what serve was asked for beside the config.
type extras struct {
	Sink   bool       // nothing is sent
	Record *recording // nil: publishes are not written down
}

func (e extras) close() error {
	if e.Record == nil {
		return nil
	}
	return e.Record.close()
}

// recording is serve --record: publishes go into a file until it is as large, or
// as old, as it may become. Then recording ends and serving goes on.
type recording struct {
	rec   *replay.Recorder
	path  string
	end   time.Time // zero: none
	over  atomic.Bool
	log   *slog.Logger
	limit *limited
}

// limited ends a file before it becomes larger than most bytes. Only the
// recorder's own goroutine writes.
type limited struct {
	file    *os.File
	most    int64
	written int64
	full    atomic.Bool
}

// Write takes buffers of whole lines. The lines that would pass the bound are
// left out whole, so that the file never ends in half of one.
func (l *limited) Write(b []byte) (int, error) {
	if l.full.Load() {
		return len(b), nil
	}
	fit := b
	if room := l.most - l.written; int64(len(b)) > room {
		l.full.Store(true)
		fit = b[:bytes.LastIndexByte(b[:room], '\n')+1]
	}
	n, err := l.file.Write(fit)
	l.written += int64(n)
	if err != nil {
		return n, err
	}
	return len(b), nil
}

func (l *limited) Close() error { return errors.Join(l.file.Sync(), l.file.Close()) }

var _ io.WriteCloser = (*limited)(nil)

// StartRecording makes the file; one that is there already is not written over.
func StartRecording(path string, most int64, length time.Duration, log *slog.Logger) (*recording, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--record: %w", err)
	}
	r := &recording{path: path, log: log, limit: &limited{file: f, most: most}}
	if length > 0 {
		r.end = time.Now().Add(length)
	}
	r.rec = replay.NewRecorder(r.limit, 0, log)
	log.Info("recording: payloads are hashed, names of callers, events and channels are not", "file", path, "most_bytes", most, "for", length)
	return r, nil
}

// of is proxy.App.Record for one app.
func (r *recording) of(app string) func(now time.Time, caller, event string, channels []string, digest [2]uint64, size int, messages int64, outcome string) {
	return func(now time.Time, caller, event string, channels []string, digest [2]uint64, size int, messages int64, outcome string) {
		switch {
		case r.over.Load():
			return
		case r.limit.full.Load(), !r.end.IsZero() && now.After(r.end):
			if r.over.CompareAndSwap(false, true) {
				r.log.Info("recording is over: the file is as large or as old as it may become", "file", r.path, "publishes", r.rec.Written(), "dropped", r.rec.Dropped())
			}
			return
		}
		r.rec.Note(now, app, caller, event, channels, digest, size, messages, outcome)
	}
}

func (r *recording) close() error {
	err := r.rec.Close()
	if err == nil {
		r.log.Info("recorded", "file", r.path, "publishes", r.rec.Written())
	}
	return err
}

// Describe and Collect make the recording a metric.
func (r *recording) Describe(ch chan<- *prometheus.Desc) { ch <- recordedDesc; ch <- recordDroppedDesc }

// Collect reads the counters.
func (r *recording) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(recordedDesc, prometheus.CounterValue, float64(r.rec.Written()))
	ch <- prometheus.MustNewConstMetric(recordDroppedDesc, prometheus.CounterValue, float64(r.rec.Dropped()))
}

var (
	recordedDesc      = prometheus.NewDesc("pushguard_recorded_total", "Publishes written down by serve --record.", nil, nil)
	recordDroppedDesc = prometheus.NewDesc("pushguard_record_dropped_total", "Publishes that serve --record could not write down in time.", nil, nil)
)
