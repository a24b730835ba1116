package main

import (
	"strings"
	"testing"
)

// The drill's shortest form: one hand-over and one restart over sockets, under
// load, with nothing refused, lost or doubled.
func TestReplacingTheProcessLosesNothing(t *testing.T) {
	for _, only := range []string{"handover", "sockets"} {
		var out strings.Builder
		if err := run(&out, "", only, "", 100, 1, only == "handover"); err != nil {
			t.Errorf("%v\n%s", err, &out)
		}
		t.Logf("\n%s", &out)
	}
}
