package main

import (
	"compress/gzip"
	"encoding/csv"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/limiter/detect/detecttest"
)

// peers are the figures of the paper's own code on files of the same kind
// (F1 on S and L).
var peers = []struct {
	name string
	f1   map[string]string
}{
	{"RiskLoc", map[string]string{"S": "0.755", "L": "0.734"}},
	{"AutoRoot", map[string]string{"S": "0.459", "L": "0.518"}},
	{"Adtributor", map[string]string{"S": "0.046", "L": "0.000"}},
}

// runs of each case, of which the fastest counts: the machine may be shared.
const runs = 3

// tally sums what Attribute did over many cases.
type tally struct {
	cases, tp, fp, fn int
	took              []time.Duration
}

func (t *tally) run(c detecttest.Case) [][]int32 {
	var causes []detect.Cause
	best := time.Hour
	for range runs {
		t0 := time.Now()
		causes = detect.Attribute(c.Table, detect.Options{})
		best = min(best, time.Since(t0))
	}
	t.took = append(t.took, best)
	named := make([][]int32, len(causes))
	for i := range causes {
		named[i] = causes[i].Values
	}
	tp, fp, fn := detecttest.Score(named, c.Causes)
	t.cases, t.tp, t.fp, t.fn = t.cases+1, t.tp+tp, t.fp+fp, t.fn+fn
	return named
}

func (t *tally) row(w io.Writer, name string) {
	slices.Sort(t.took)
	f1 := 2 * float64(t.tp) / float64(2*t.tp+t.fp+t.fn)
	fmt.Fprintf(w, "%s\t%d\t%.3f\t%d\t%d\t%d\t%.1f\t%.1f\n", name, t.cases, f1, t.tp, t.fp, t.fn,
		t.took[len(t.took)/2].Seconds()*1e3, t.took[len(t.took)-1].Seconds()*1e3)
}

func attribution(args []string, out, errs io.Writer) error {
	fs := flag.NewFlagSet("attribution", flag.ContinueOnError)
	data := fs.String("data", "", "folder with S-*.csv.gz, L-*.csv.gz and their *-truth.csv; instead of generated cases")
	seeds := seedRange{100000, 100200}
	fs.Var(&seeds, "seeds", "generated cases, `FROM:TO`")
	wrong := fs.Bool("wrong", false, "list the cases that were not answered exactly")
	if err := parse(fs, args, errs); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "setting\tcases\tF1\tright\twrong\tmissed\tmedian ms\tmax ms\t")
	for _, set := range []detecttest.Setting{detecttest.S, detecttest.L} {
		var t tally
		show := func(name string, c detecttest.Case) {
			named := t.run(c)
			if tp, fp, fn := detecttest.Score(named, c.Causes); *wrong && fp+fn > 0 {
				fmt.Fprintf(errs, "%s %s %5.1fms: %d right; named %v, injected %v\n", set.Name, name, t.took[len(t.took)-1].Seconds()*1e3, tp, named, c.Causes)
			}
		}
		if *data == "" {
			for seed := seeds.from; seed < seeds.to; seed++ {
				show(strconv.FormatUint(seed, 10), set.Generate(seed))
			}
		} else if err := eachFile(*data, set.Name, show); err != nil {
			return err
		}
		if t.cases > 0 {
			t.row(w, set.Name)
		}
	}
	for _, p := range peers {
		fmt.Fprintf(w, "%s (published code)\t\tS %s\tL %s\t\t\t\t\n", p.name, p.f1["S"], p.f1["L"])
	}
	return w.Flush()
}

// eachFile reads the cases of a setting that SETTING-truth.csv lists.
func eachFile(dir, setting string, do func(string, detecttest.Case)) error {
	f, err := os.Open(filepath.Join(dir, setting+"-truth.csv"))
	if err != nil {
		return err
	}
	defer f.Close()
	truth, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return err
	}
	for _, row := range truth[1:] {
		c, err := readCase(filepath.Join(dir, row[0]), row[1])
		if err != nil {
			return fmt.Errorf("%s: %w", row[0], err)
		}
		do(row[0], c)
	}
	return nil
}

func readCase(path, causes string) (detecttest.Case, error) {
	var c detecttest.Case
	f, err := os.Open(path)
	if err != nil {
		return c, err
	}
	defer f.Close()
	var in io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return c, err
		}
		in = z
	}
	r := csv.NewReader(in)
	r.ReuseRecord = true
	head, err := r.Read()
	if err != nil {
		return c, err
	}
	k := len(head) - 2
	attrs := slices.Clone(head[:k])
	codes := make([]map[string]int32, k)
	c.Table.Columns = make([][]int32, k)
	for a := range codes {
		codes[a] = map[string]int32{}
	}
	for {
		row, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return c, err
		}
		for a := range k {
			code, ok := codes[a][row[a]]
			if !ok {
				code = int32(len(codes[a]))
				codes[a][strings.Clone(row[a])] = code
			}
			c.Table.Columns[a] = append(c.Table.Columns[a], code)
		}
		v, err := strconv.ParseFloat(row[k], 64)
		if err != nil {
			return c, err
		}
		p, err := strconv.ParseFloat(row[k+1], 64)
		if err != nil {
			return c, err
		}
		c.Table.Real, c.Table.Predicted = append(c.Table.Real, v), append(c.Table.Predicted, p)
	}
	for cause := range strings.SplitSeq(causes, ";") {
		values := slices.Repeat([]int32{-1}, k)
		for part := range strings.SplitSeq(cause, "&") {
			name, value, _ := strings.Cut(part, "=")
			a := slices.Index(attrs, name)
			if a < 0 {
				return c, fmt.Errorf("cause %q names no attribute of %v", part, attrs)
			}
			values[a] = codes[a][value]
		}
		c.Causes = append(c.Causes, values)
	}
	return c, nil
}
