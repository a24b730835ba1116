package main

import "testing"

// The use at reset, forecast at midday on generated weeks, is less than 10 % off in the median, and far better than a
// straight line. The command draws more accounts.
func TestForecastError(t *testing.T) {
	if err := forecastErrors(t.Output(), 12); err != nil {
		t.Fatal(err)
	}
}
