package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// File is an Outbox in one file, written anew at each change: into another file
// first, fsynced, and then put in its place, so that a crash leaves the old one
// or the new one. It holds no URL and no key, but what alerts say; its mode is
// 0600.
type File struct{ Path string }

// NewFile is the outbox in the data directory.
func NewFile(dataDir string) File { return File{filepath.Join(dataDir, "alerts.json")} }

// maxFile is well above what the bounds of a Sender allow.
const maxFile = 64 << 20

// Load reads the file; that there is none is no error.
func (f File) Load() (State, error) {
	info, err := os.Stat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return State{Version: stateVersion}, nil
	case err != nil:
		return State{}, err
	case info.Size() > maxFile:
		return State{}, fmt.Errorf("%s has %d bytes: it was not written by pushguard; move it away", f.Path, info.Size())
	}
	data, err := os.ReadFile(f.Path)
	if err != nil {
		return State{}, err
	}
	return decode(f.Path, data)
}

func decode(path string, data []byte) (State, error) {
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, fmt.Errorf("%s cannot be read (%w); move it away to start with an empty one", path, err)
	}
	if s.Version != stateVersion {
		return State{}, fmt.Errorf("%s is of version %d; this release reads %d", path, s.Version, stateVersion)
	}
	return s, nil
}

// Save replaces the file.
func (f File) Save(s State) error {
	s.Version = stateVersion
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	dir := filepath.Dir(f.Path)
	tmp, err := os.CreateTemp(dir, ".alerts-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), f.Path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
