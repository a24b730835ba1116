package main

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pushguard/pushguard/"

// The law of the house: imports run one way, and some rooms do not know some
// things. Each entry says which import a room must not have, and why.
var law = []struct{ room, forbidden, why string }{
	{"pusher", module, "the protocol is a leaf: the simulator and tests speak it without the guard"},
	{"pusher", "github.com/redis/go-redis", "only quota/store knows Redis"},
	{"pusher/sim", module + "limiter", "the simulator judges as Pusher does, not as the guard does"},
	{"pusher/sim", module + "quota", "the simulator bills by itself, so that it can contradict the ledger"},
	{"pusher/sim", module + "pusher/proxy", "the simulator is the other side of the line"},
	{"pusher/wire", module, "requests and responses are values: they know nothing of the guard"},
	{"pusher/netpoll", module, "sockets know no protocol"},
	{"pusher/netpoll", "net/http", "sockets know no protocol"},
	{"pusher/netpoll", "github.com/valyala/fasthttp", "sockets know no protocol"},
	{"pusher/upstream", module + "pusher/proxy", "nothing imports upward"},
	{"pusher/upstream", module + "limiter", "connections know no judgement"},
	{"pusher/upstream", module + "quota", "connections know no money"},
	{"pusher/upstream", module + "cmd", "nothing imports upward"},
	{"pusher/proxy", module + "cmd", "nothing imports upward"},
	{"pusher/proxy", module + "quota/store", "only quota talks to the store"},
	{"pusher/proxy", "github.com/redis/go-redis", "only quota/store knows Redis"},
	{"pusher/proxy", "html/template", "only ops knows HTML"},
	{"limiter", module + "pusher", "nothing imports upward"},
	{"limiter", module + "cmd", "nothing imports upward"},
	{"limiter", "net/http", "the judgement knows no HTTP"},
	{"limiter", "github.com/valyala/fasthttp", "the judgement knows no HTTP"},
	{"limiter", "encoding/json", "the judgement knows no JSON"},
	{"limiter/detect", module + "pusher", "the detector is pure"},
	{"limiter/detect", module + "quota", "the detector is pure"},
	{"limiter/detect", "net/http", "the detector is pure"},
	{"limiter/detect", "encoding/json", "the detector is pure"},
	{"quota", module + "limiter", "nothing imports upward"},
	{"quota", module + "pusher", "nothing imports upward"},
	{"quota", module + "cmd", "nothing imports upward"},
	{"quota", "net/http", "money knows no HTTP"},
	{"quota", "encoding/json", "money knows no JSON"},
	{"quota", "github.com/redis/go-redis", "only quota/store knows Redis"},
	{"quota", "github.com/alicebob/miniredis", "only quota/store knows the embedded store"},
	{"quota/delayed", "github.com/redis/go-redis", "only quota/store knows Redis"},
	{"quota/dedupe", "github.com/redis/go-redis", "only quota/store knows Redis"},
	{"quota/store", module + "quota", "nothing imports upward"},
	{"quota/rates", module, "the exchange of shares knows neither Redis nor publishes"},
	{"quota/fanout", module, "estimates of subscribers are a tenant of their own"},
	{"quota/forecast", module + "limiter", "nothing imports upward"},
	{"cmd/pushguard/config", module + "pusher/proxy", "the config is plain data"},
	{"cmd/pushguard/config", module + "cmd/pushguard/ops", "the config is plain data"},
}

func TestImportsRunOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	imports := map[string][]string{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		imports[p.ImportPath] = p.Imports
	}
	for _, l := range law {
		got, known := imports[module+l.room]
		if !known {
			t.Errorf("the law speaks of %s, which does not exist", l.room)
		}
		for _, i := range got {
			if i == l.forbidden || strings.HasPrefix(i, strings.TrimSuffix(l.forbidden, "/")+"/") {
				t.Errorf("%s imports %s, but %s", l.room, i, l.why)
			}
		}
	}
}

// arrows are all that the rooms of the data port may import of the project. What is not listed is
// forbidden, so the rooms stand in one order and no two of them depend on one another.
var arrows = map[string][]string{
	"pusher":                       {},
	"pusher/wire":                  {},
	"pusher/netpoll":               {},
	"pusher/upstream":              {"pusher/wire", "pusher/netpoll"},
	"pusher/upstream/upstreamtest": {},
	"pusher/sim":                   {"pusher"},
	"pusher/proxy":                 {"pusher", "pusher/wire", "pusher/netpoll", "pusher/upstream", "limiter", "quota", "quota/delayed", "quota/dedupe", "quota/fanout"},
	"limiter/detect":               {},
	"quota/fanout":                 {},
	"quota/rates":                  {},
	"quota/store":                  {},
}

// links are what a room must not need by any detour either.
var links = []struct{ room, forbidden, why string }{
	{"pusher", "github.com/redis/go-redis", "the protocol is a leaf"},
	{"pusher/wire", "github.com/redis/go-redis", "requests and responses are values"},
	{"pusher/netpoll", "github.com/valyala/fasthttp", "sockets know no protocol"},
	{"pusher/upstream", "github.com/redis/go-redis", "connections know no money"},
	{"limiter/detect", "github.com/redis/go-redis", "the detector is pure"},
	{"limiter/detect", "net/http", "the detector is pure"},
	{"quota/fanout", "github.com/redis/go-redis", "estimates know no store"},
	{"quota/rates", "github.com/redis/go-redis", "the exchange knows no store"},
}

func TestRoomsStandInOneOrder(t *testing.T) {
	for room, may := range arrows {
		for _, i := range listed(t, room, "{{join .Imports \"\\n\"}}") {
			if to, ours := strings.CutPrefix(i, module); ours && !slices.Contains(may, to) {
				t.Errorf("%s imports %s, which is none of its arrows", room, to)
			}
		}
	}
}

func TestRoomsLinkOnlyWhatTheyMay(t *testing.T) {
	for _, l := range links {
		for _, d := range listed(t, l.room, "{{join .Deps \"\\n\"}}") {
			if d == l.forbidden || strings.HasPrefix(d, l.forbidden+"/") {
				t.Errorf("%s needs %s, but %s", l.room, d, l.why)
				break
			}
		}
	}
}

func listed(t *testing.T, room, format string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", format, module+room).Output()
	if err != nil {
		t.Fatalf("go list %s: %v", room, err)
	}
	return strings.Fields(string(out))
}

// Cryptography and tight loops belong to Go's own library.
func TestThereIsNoAssembly(t *testing.T) {
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".s"):
			t.Errorf("%s is assembly of our own", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
