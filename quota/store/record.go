package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A Record is a small durable note that one process keeps for itself: two slots written in turn, so that a crash
// in the middle of a Save leaves the one before. It holds no history.
//
// Processes of the same name side by side (an old and a new one at a hand-over) keep one each.
type Record struct {
	// Left is what an earlier process of the name left here; nil: nothing, or it was damaged.
	Left []byte

	slots [2]*os.File // the first also carries the lock
	count uint64
	base  string // path without the ending
}

// maxRecords is how many processes of one name may live side by side.
const maxRecords = 8

// OpenRecord opens a record of name in dir for this process. others are those of further processes of that name that are
// dead, locked as well: whoever gets them closes them. What is damaged is left out: it was never complete, or the disk is bad.
func OpenRecord(dir, name string) (mine *Record, others []*Record, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	base := filepath.Join(dir, "replica-"+url.PathEscape(name)+".")
	for i := range maxRecords {
		r := &Record{base: base + strconv.Itoa(i)}
		_, statErr := os.Stat(r.base + ".a")
		if mine != nil && statErr != nil {
			continue
		}
		if r.slots[0], err = lockFile(r.base + ".a"); err != nil {
			continue // its process lives
		}
		if r.slots[1], err = os.OpenFile(r.base+".b", os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			r.slots[0].Close()
			continue
		}
		r.Left, r.count = r.newest()
		switch {
		case mine == nil:
			mine = r
		case r.Left != nil:
			others = append(others, r)
		default:
			r.Close()
		}
	}
	if mine == nil {
		return nil, nil, fmt.Errorf("no record for %s in %s: %w", name, dir, err)
	}
	return mine, others, syncDir(dir)
}

func (r *Record) newest() (data []byte, count uint64) {
	for _, f := range r.slots {
		raw, err := os.ReadFile(f.Name())
		if err != nil {
			continue
		}
		body, ok := soundFrame(raw)
		if !ok || len(body) < 8 {
			continue
		}
		if c := binary.BigEndian.Uint64(body); c >= count {
			data, count = body[8:], c
		}
	}
	return data, count
}

// Save replaces the record; it is on disk when Save returns.
func (r *Record) Save(data []byte) error {
	r.count++
	body := append(binary.BigEndian.AppendUint64(nil, r.count), data...)
	frame := appendFrame(nil, body)
	f := r.slots[r.count%2]
	if _, err := f.WriteAt(frame, 0); err != nil {
		return err
	}
	return f.Sync()
}

// Name is the same for all processes that ever hold this record, and for no others.
func (r *Record) Name() (string, error) {
	path := r.base + ".name"
	b, err := os.ReadFile(path)
	if err == nil && len(b) == 16 {
		return string(b), nil
	}
	name := rand.Text()[:16]
	return name, writeSynced(path, []byte(name))
}

// Close keeps the record for the next process.
func (r *Record) Close() error { return errors.Join(r.slots[1].Close(), r.slots[0].Close()) }

// globEscape makes a path mean itself in a pattern.
var globEscape = strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, `\`, `\\`).Replace
