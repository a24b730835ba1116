package ops

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// BenchmarkSecond is what one second of the dashboard costs: looking at the
// guard, and with pages, making the frame and writing it to all of them over
// loopback. ns/op divided by 10^9 is the part of one processor.
func BenchmarkSecond(b *testing.B) {
	for _, pages := range []int{0, 1, 50} {
		b.Run(map[int]string{0: "no page", 1: "1 page", 50: "50 pages"}[pages], func(b *testing.B) {
			s := newStage(b)
			srv := s.server()
			s.yesterday(srv, time.Now())
			port := httptest.NewServer(srv)
			b.Cleanup(port.Close)
			got := make(chan struct{}, pages)
			for range pages {
				resp, err := http.Get(port.URL + "/api/v1/events")
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { resp.Body.Close() })
				go func() {
					buf := make([]byte, 64<<10)
					for {
						n, err := resp.Body.Read(buf)
						if bytes.HasSuffix(buf[:n], []byte("\n\n")) {
							got <- struct{}{}
						}
						if err != nil {
							return
						}
					}
				}()
			}
			for range pages {
				<-got // the first frame
			}
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Second)
				srv.Sample(now)
				srv.stream.send(srv.frame)
				for range pages {
					<-got
				}
			}
		})
	}
}

// BenchmarkDayOfHistory is what a page asks for when it shows a day.
func BenchmarkDayOfHistory(b *testing.B) {
	s := newStage(b)
	srv := s.server()
	s.yesterday(srv, time.Now())
	for b.Loop() {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "http://127.0.0.1:8081/api/v1/history?account=care&window=24h&callers=1", nil)
		r.RemoteAddr = "127.0.0.1:1"
		r.Header.Set("Accept-Encoding", "gzip")
		srv.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Code)
		}
		b.SetBytes(int64(w.Body.Len()))
		_, _ = io.Copy(io.Discard, w.Body)
	}
}
