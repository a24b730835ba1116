package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// lastGoodFile is the cache on disk. It holds values and not a whole Config, so
// that the file stays the one source of what is configured: an edited file is
// checked as ever, and a reference that never resolved is not invented.
type lastGoodFile struct {
	Version int               `json:"version"`
	SavedAt time.Time         `json:"saved_at"`
	Values  map[string]string `json:"values"` // reference without ${ and } → value
}

const lastGoodVersion = 1

func lastGoodPath(c *Config) string {
	if c.LastGood.Path != "" {
		return c.LastGood.Path
	}
	return filepath.Join(c.DataDir, "last-good.json")
}

// Keep writes what the references resolved to into the last good cache, if the
// file asks for one: mode 0600, replaced in one step, left alone when nothing
// changed. To be called once the Config is proven by running on it. What came
// from the cache itself is not written again, so that its age stays true.
func (l *Loaded) Keep(now time.Time) error {
	if l.Config == nil || !l.Config.LastGood.On || len(l.Config.FromLastGood) > 0 {
		return nil
	}
	if old, err := readLastGood(l.LastGood); err == nil && sameValues(old, l.values) {
		return nil
	}
	data, err := json.Marshal(lastGoodFile{Version: lastGoodVersion, SavedAt: now.UTC(), Values: l.values})
	if err != nil {
		return err
	}
	if err := writeAtomic(l.LastGood, data); err != nil {
		return fmt.Errorf("last_good: %w", err)
	}
	return nil
}

func sameValues(a, b map[string]string) bool {
	x, _ := json.Marshal(a) // a map's keys come sorted
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

func readLastGood(path string) (map[string]string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("there is no last good cache: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file, so it is not used", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, errLoose(path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f lastGoodFile
	if err := json.Unmarshal(data, &f); err != nil || f.Version != lastGoodVersion {
		return nil, fmt.Errorf("%s is no last good cache of this version", path)
	}
	return f.Values, nil
}

// writeAtomic replaces path whole or not at all, readable by its owner alone.
func writeAtomic(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".last-good-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
