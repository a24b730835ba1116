package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// worker is a Node.js process that takes orders as lines of JSON; see
// node/lines.js. Its methods are safe for concurrent use.
type worker struct {
	in   io.WriteCloser
	cmd  *exec.Cmd
	done chan struct{}

	mu      sync.Mutex
	next    int
	waiting map[int]chan json.RawMessage
	heard   []delivery // what came without being asked for
}

// delivery is what a pusher-js client received.
type delivery struct {
	Client, Channel, Event string
	Data                   json.RawMessage
}

// hire starts a worker.
func hire(script string) (*worker, error) {
	cmd := exec.Command("node", filepath.Join("node", script))
	dieWithTests(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	errs := logs.open(script)
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w := &worker{in: in, cmd: cmd, done: make(chan struct{}), waiting: map[int]chan json.RawMessage{}}
	ready := make(chan struct{})
	go func() {
		defer close(w.done)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var head struct {
				ID    int
				Ready bool
			}
			line := append(json.RawMessage(nil), lines.Bytes()...)
			if err := json.Unmarshal(line, &head); err != nil {
				fmt.Fprintf(errs, "no JSON: %s\n", line)
				continue
			}
			switch {
			case head.Ready:
				close(ready)
			case head.ID > 0:
				w.mu.Lock()
				ch := w.waiting[head.ID]
				delete(w.waiting, head.ID)
				w.mu.Unlock()
				ch <- line
			default:
				var d delivery
				if err := json.Unmarshal(line, &d); err == nil {
					w.mu.Lock()
					w.heard = append(w.heard, d)
					w.mu.Unlock()
				}
			}
		}
		_ = cmd.Wait()
	}()
	select {
	case <-ready:
		return w, nil
	case <-w.done:
		return nil, fmt.Errorf("node %s ended: %s", script, errs)
	}
}

func (w *worker) dismiss() {
	_ = w.in.Close()
	select {
	case <-w.done:
	case <-time.After(5 * time.Second):
		_ = w.cmd.Process.Kill()
		<-w.done
	}
}

type order map[string]any

// do carries out one order and reads its answer into out, which may be nil.
func (w *worker) do(t testing.TB, op string, o order, out any) {
	t.Helper()
	answer := make(chan json.RawMessage, 1)
	w.mu.Lock()
	w.next++
	id := w.next
	w.waiting[id] = answer
	o["id"], o["op"] = id, op
	line, err := json.Marshal(o)
	if err == nil {
		_, err = w.in.Write(append(line, '\n'))
	}
	w.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	select {
	case b := <-answer:
		var broken struct{ Broken string }
		if json.Unmarshal(b, &broken); broken.Broken != "" {
			t.Fatalf("%s: %s", op, broken.Broken)
		}
		if out != nil {
			if err := json.Unmarshal(b, out); err != nil {
				t.Fatalf("%s: %v in %s", op, err, b)
			}
		}
	case <-w.done:
		t.Fatalf("%s: the worker has ended", op)
	case <-time.After(patience):
		t.Fatalf("%s: no answer within %s", op, patience)
	}
}

// of is what one client received on one channel, in order.
func (w *worker) of(client, channel string) (got []delivery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.heard {
		if d.Client == client && d.Channel == channel {
			got = append(got, d)
		}
	}
	return got
}

// publisher is the one worker that runs the Node SDK; the first test that wants
// it starts it.
var publisher = sync.OnceValues(func() (*worker, error) {
	w, err := hire("publisher.js")
	if err == nil {
		hired = append(hired, w)
	}
	return w, err
})

var hired []*worker

func stopWorkers() {
	for _, w := range hired {
		w.dismiss()
	}
}
