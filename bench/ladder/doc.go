// Package ladder measures the judgement of a publish rung by rung, beside bare
// golang.org/x/time/rate in the same run:
//
//	go test -run '^$' -bench . -cpu 1,2 ./bench/ladder
//
// Read ratios, not absolute figures: they differ from machine to machine.
package ladder
