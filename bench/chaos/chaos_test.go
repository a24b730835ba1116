package main

import (
	"strings"
	"testing"
	"time"
)

// The short form: each kind of fault once at least, on one Redis and on Sentinel,
// at a load that also a busy machine carries.
func TestTheBudgetHoldsUnderFire(t *testing.T) {
	var out strings.Builder
	err := run(&out, settings{rate: 400, length: 22 * time.Second, seed: 3}, "")
	if err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	t.Logf("\n%s", &out)
}
