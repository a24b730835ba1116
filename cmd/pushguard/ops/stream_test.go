package ops

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// listen opens a stream over a real connection.
func listen(t testing.TB, url string) (*bufio.Scanner, *http.Response) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return lines, resp
}

func next(t testing.TB, lines *bufio.Scanner) (f Frame) {
	t.Helper()
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := json.Unmarshal([]byte(data), &f); err != nil {
				t.Fatal(err)
			}
			return f
		}
	}
	t.Fatal("the stream ended:", lines.Err())
	return f
}

func TestStreamTellsEachSecond(t *testing.T) {
	s := newStage(t, noon)
	s.detector.incidents = []Incident{storm(noon), resolved(noon)}
	srv := s.server()
	real := httptest.NewServer(srv)
	t.Cleanup(real.Close)
	lines, resp := listen(t, real.URL)
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%v", resp.Header)
	}
	first := next(t, lines)
	if len(first.Status.Accounts) != 2 || len(first.Incidents) != 1 || !first.Detector || first.Assets == "" {
		t.Errorf("the first frame: %+v", first)
	}
	s.publish(noon, "care", "care-api", "x", "c", 3)
	srv.Sample(s.at(noon.Add(time.Second)))
	s.publish(s.now(), "care", "care-api", "x", "c", 5)
	srv.Sample(s.at(noon.Add(2 * time.Second)))
	srv.stream.send(srv.frame)
	if f := next(t, lines); f.Ticks["care"].T != noon.Add(2*time.Second).Unix() || f.Ticks["care"].Groups["passed"] != 5 || len(f.Events["care"]) != 2 || f.Events["care"][0].Kind != "start" || f.Events["care"][1].Kind != "incident" {
		t.Errorf("the second frame: %+v %+v", f.Ticks["care"], f.Events["care"])
	}
}

func TestStreamCarriesTheBusiestOnly(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	for i := range 200 {
		s.publish(noon, "care", "guest-"+string(rune('a'+i%26))+string(rune('a'+i/26)), "x", "c", 1+i%3)
	}
	srv.Sample(noon)
	body := string(srv.frame())
	var f Frame
	if err := json.Unmarshal([]byte(strings.TrimPrefix(body, "event: state\ndata: ")), &f); err != nil {
		t.Fatal(err)
	}
	care := f.Status.Accounts[0]
	if len(care.Callers) != streamCallers || care.CallersTotal != 205 || care.Callers[0].Rate1m < care.Callers[49].Rate1m {
		t.Errorf("%d of %d callers", len(care.Callers), care.CallersTotal)
	}
	if len(body) > 32<<10 {
		t.Errorf("a frame of %d bytes", len(body))
	}
}

// A page that does not read is let go, and nobody waits for it.
func TestSlowPageIsDropped(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server(func(c *Config) { c.MaxStreams = 2 })
	slow, quick := srv.stream.join(), srv.stream.join()
	if slow == nil || quick == nil || srv.stream.join() != nil {
		t.Fatal("two pages are let in, a third is not")
	}
	if w := ask(t, srv, "GET", "/api/v1/events", nil); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("a third page gets %d", w.Code)
	}
	for range slowFrames + 1 {
		srv.stream.send(func() []byte { return []byte("x") })
		<-quick.frames
	}
	select {
	case <-slow.gone:
	default:
		t.Error("the page that reads nothing is still there")
	}
	select {
	case <-quick.gone:
		t.Error("the page that reads was let go")
	default:
	}
	if srv.stream.open() != 1 || srv.stream.join() == nil {
		t.Error("its place is not free")
	}
}

func TestFramesAreMadeOnlyForSomebody(t *testing.T) {
	var st stream
	st.most = 1
	st.send(func() []byte { t.Error("a frame was made for nobody"); return nil })
}

// deaf is a browser whose machine fell asleep: writes to it never end, but for
// the deadline.
type deaf struct {
	http.ResponseWriter
	deadline time.Time
}

func (d *deaf) Write([]byte) (int, error)           { return 0, context.DeadlineExceeded }
func (d *deaf) SetWriteDeadline(at time.Time) error { d.deadline = at; return nil }
func (d *deaf) Flush()                              {}

func TestWriteToADeafBrowserHasAnEnd(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	w := &deaf{ResponseWriter: httptest.NewRecorder()}
	srv.events(w, httptest.NewRequest("GET", "/api/v1/events", nil))
	if wait := time.Until(w.deadline); wait <= 0 || wait > slowFrames*time.Second {
		t.Errorf("the deadline is %v away", wait)
	}
	if srv.stream.open() != 0 {
		t.Error("its place is not free")
	}
}

func TestRunEndsItsStreams(t *testing.T) {
	s := newStage(t)
	srv := s.server()
	real := httptest.NewServer(srv)
	t.Cleanup(real.Close)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { srv.Run(ctx); close(ran) }()
	lines, _ := listen(t, real.URL)
	next(t, lines)
	next(t, lines)
	cancel()
	<-ran
	for lines.Scan() {
	}
	if w := ask(t, srv, "GET", "/api/v1/events", nil); w.Code != 503 {
		t.Errorf("a page that comes too late: %d", w.Code)
	}
}
