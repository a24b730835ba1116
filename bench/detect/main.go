// Command detect prints how well package limiter/detect does, on data with a
// known answer:
//
//	go run ./bench/detect attribution [--data DIR] [--seeds 100000:100200]
//	go run ./bench/detect incidents   [--seeds 500000:501000] [--factors 1:1e9]
//	go run ./bench/detect healthy     [--seeds 600000:600020] [--days 365]
//	go run ./bench/detect step        [--seeds 700000:700100]
//
// Seeds from 100000 on were never used for tuning.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run returns 0 when the table was printed, 1 when it could not be, 2 for
// wrong usage.
func run(args []string, out, errs io.Writer) int {
	tables := map[string]func([]string, io.Writer, io.Writer) error{
		"attribution": attribution, "real": real, "incidents": incidents, "healthy": healthy, "step": step,
	}
	if len(args) == 0 || tables[args[0]] == nil {
		fmt.Fprintln(errs, "usage: detect attribution|incidents|healthy|step [flags]")
		return 2
	}
	err := tables[args[0]](args[1:], out, errs)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	}
	fmt.Fprintln(errs, "detect:", err)
	return 1
}

// errUsage says that the flag package has already told what is wrong.
var errUsage = errors.New("usage")

func parse(fs *flag.FlagSet, args []string, errs io.Writer) error {
	fs.SetOutput(errs)
	err := fs.Parse(args)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		return errUsage
	}
	return err
}

// seedRange is a half-open range of seeds, written FROM:TO.
type seedRange struct{ from, to uint64 }

func (r *seedRange) String() string { return fmt.Sprintf("%d:%d", r.from, r.to) }

func (r *seedRange) Set(s string) error {
	from, to, ok := strings.Cut(s, ":")
	a, err := strconv.ParseUint(from, 10, 64)
	b, err2 := strconv.ParseUint(to, 10, 64)
	if !ok || err != nil || err2 != nil || b <= a {
		return fmt.Errorf("want FROM:TO with FROM < TO, have %q", s)
	}
	r.from, r.to = a, b
	return nil
}

// factorRange is a half-open range of factors, written LO:HI.
type factorRange struct{ lo, hi float64 }

func (r *factorRange) String() string { return fmt.Sprintf("%g:%g", r.lo, r.hi) }

func (r *factorRange) has(x float64) bool { return x >= r.lo && x < r.hi }

func (r *factorRange) Set(s string) error {
	lo, hi, ok := strings.Cut(s, ":")
	a, err := strconv.ParseFloat(lo, 64)
	b, err2 := strconv.ParseFloat(hi, 64)
	// Incidents are drawn between 1.3 and 50; a range without any would draw for ever.
	if !ok || err != nil || err2 != nil || b <= a || b <= 1.3 || a >= 50 {
		return fmt.Errorf("want LO:HI with LO < HI, of which a part lies between 1.3 and 50, have %q", s)
	}
	r.lo, r.hi = a, b
	return nil
}
