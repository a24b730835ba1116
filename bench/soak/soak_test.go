package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The soak's shortest form, with every fault in it twice.
func TestTwoCycles(t *testing.T) {
	s := soak{long: 20 * time.Second, cycle: 10 * time.Second, rate: 200, svg: filepath.Join(t.TempDir(), "soak.svg")}
	var out strings.Builder
	if err := s.run(&out); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	t.Logf("\n%s", &out)
	chart, err := os.ReadFile(s.svg)
	if err != nil {
		t.Fatal(err)
	}
	for dec := xml.NewDecoder(bytes.NewReader(chart)); ; {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// What grows is found out: a run whose process holds ever more is not called flat.
func TestGrowthIsSeen(t *testing.T) {
	s := soak{long: 40 * time.Second, cycle: 10 * time.Second}
	for i := range 40 {
		s.samples = append(s.samples, sample{at: time.Duration(i) * time.Second, resident: 50 + float64(i), goroutines: 20, heap: 10, files: 20})
	}
	quiet := s.quiet()
	if len(quiet) != 4 || len(quiet[0]) != 2 {
		t.Fatalf("%d cycles of %d", len(quiet), len(quiet[0]))
	}
	first, last := middle(measures[0], quiet[1:2]), middle(measures[0], quiet[3:])
	if last-first != 20 || last-first < measures[0].slack {
		t.Errorf("from %v to %v", first, last)
	}
}
