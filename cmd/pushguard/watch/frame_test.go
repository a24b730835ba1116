package watch

import (
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// mixed lets everybody send for d as run does, but what is sent in the name of jobs comes
// in between the caller's own, not after them.
func (c *town) mixed(d time.Duration, extra int) {
	c.passed, c.held = map[string]int{}, map[string]int{}
	for range int(d / time.Second) {
		for i, caller := range []string{"api", "chat", "lab", "shifts"} {
			for n := range 4 {
				c.publish(caller, "news", uint64(c.now.Unix())<<8|uint64(i*8+n+1)<<3, "")
			}
		}
		all := 4 + extra
		for n := range all {
			own := (n*4+int(c.now.Unix()%int64(all)))/all != ((n+1)*4+int(c.now.Unix()%int64(all)))/all
			tag := "runaway"
			if own {
				tag = "jobs"
			}
			c.publish("jobs", "news", uint64(c.now.Unix())<<20|uint64(n+1000), tag)
		}
		c.now = c.now.Add(time.Second)
		c.w.Tick(c.now)
	}
}

// Somebody who has a caller's secret sends in its name, so that the caller is
// held. What that costs him, and what it does to the caller:
// go test -run WhatItCosts -v ./cmd/pushguard/watch prints it.
func TestWhatItCostsToGetACallerHeld(t *testing.T) {
	before := newTown(t, Auto)
	before.run(2*time.Hour, 0, "", 0)
	calm := before.w.Save()
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "he sends, × the caller's rate\theld after\tpublishes until then\tof the caller's own refused while he goes on\t6 min after he stopped")
	cheapest := 1 << 30
	for _, times := range []int{1, 2, 3, 15, 50} {
		c := newTown(t, Auto)
		if err := c.w.Load(calm); err != nil {
			t.Fatal(err)
		}
		c.now = before.now
		c.run(3*time.Minute, 0, "", 0)
		extra := 4 * times // the caller sends four a second
		held, cost := time.Duration(0), 0
		for held < 30*time.Minute {
			c.mixed(time.Second, extra)
			held += time.Second
			cost += extra
			if c.w.current != nil && c.w.current.Action == Contained {
				break
			}
		}
		if c.w.current == nil || c.w.current.Action != Contained {
			fmt.Fprintf(w, "%d\tnever in 30 min\t%d\t0 %%\t\n", times, cost)
			continue
		}
		cheapest = min(cheapest, cost)
		c.mixed(5*time.Minute, extra)
		while := float64(c.held["jobs"]) / float64(c.held["jobs"]+c.passed["jobs"])
		for _, other := range []string{"api", "chat", "lab", "shifts"} {
			if c.held[other] > 0 {
				t.Errorf("×%d: %d publishes of %s were held", times, c.held[other], other)
			}
		}
		c.run(6*time.Minute, 0, "", 0)
		c.run(time.Minute, 0, "", 0)
		after := c.held["jobs"]
		if after > 0 {
			t.Errorf("×%d: six minutes after he stopped %d publishes a minute of the caller's own are held", times, after)
		}
		if times >= 2 && while < 0.1 {
			t.Errorf("×%d: %.2f of the caller's own were refused; they share one allowance, so this measures nothing", times, while)
		}
		fmt.Fprintf(w, "%d\t%v\t%d\t%.0f %%\t0 %%\n", times, held, cost, 100*while)
	}
	_ = w.Flush()
	t.Log("\n" + table.String())
	// Half a minute of as much again as the caller sends is the least.
	if cheapest < 30*4 {
		t.Errorf("a caller of 4 a second is held for %d publishes", cheapest)
	}
}
