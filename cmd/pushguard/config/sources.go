package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"
)

// remoteSchemes are the references that a Source answers: ${aws-sm:NAME},
// ${aws-sm:NAME#json-key} (AWS Secrets Manager) and ${aws-ssm:/path} (AWS
// Systems Manager Parameter Store).
var remoteSchemes = []string{"aws-sm", "aws-ssm"}

// Source answers one kind of reference with its present value. It must return
// when ctx ends; its error must not hold the value.
type Source func(ctx context.Context, name string) (string, error)

// ErrUnreachable marks an error of a Source that the next question would meet
// too: the service did not answer at all.
var ErrUnreachable = errors.New("the service cannot be reached")

// Loader reads files whose references may need more than the environment.
type Loader struct {
	// Getenv answers ${NAME}, as os.Getenv does.
	Getenv func(string) string
	// Sources answer the other references, by scheme. One that is absent counts
	// as out of reach.
	Sources map[string]Source
	// Wait bounds one question to a Source; 0 means 5 s. A source that is
	// unreachable is not asked again within one load, so that many secrets do
	// not add up to minutes.
	Wait time.Duration
}

// Loaded is what one load saw, whether it succeeded or not.
type Loaded struct {
	// Config is nil if the load failed.
	Config *Config
	// Files are what the load read or wanted to read: the file itself, referenced
	// files, certificate and key, each with its Fingerprint from before it was
	// read. A change of one is a reason to load again.
	Files map[string]string
	// Remote says that there are references to Sources, which have to be asked
	// again to see a change.
	Remote bool
	// LastGood is the path of the cache, empty when the file asks for none.
	LastGood string
	// Aside is why a last good cache that was wanted could not be used.
	Aside error

	values map[string]string
}

// References is how many different references the config holds.
func (l *Loaded) References() int { return len(l.values) }

// Load reads and checks the file at path, as the function Load does. The
// Loaded is never nil: what has to be watched is known also for a bad file.
func (l *Loader) Load(ctx context.Context, path string) (*Loaded, error) {
	return l.load(ctx, path, false)
}

// LoadOrLastGood is Load for a start: if nothing is wrong but that sources are
// out of reach, and the file asks for a last good cache, what these references
// resolved to the last time is used, and named in Config.FromLastGood. The
// file itself is always the one at path; its own mistakes are errors.
func (l *Loader) LoadOrLastGood(ctx context.Context, path string) (*Loaded, error) {
	return l.load(ctx, path, true)
}

func (l *Loader) load(ctx context.Context, path string, start bool) (*Loaded, error) {
	out := &Loaded{Files: map[string]string{path: Fingerprint(path)}}
	data, err := readFile(path)
	if err != nil {
		return out, err
	}
	r := l.resolver(ctx, path)
	cfg, err := parseAll(path, data, r)
	if start && cfg != nil && cfg.LastGood.On && onlyOutOfReach(err) {
		kept, keptErr := readLastGood(lastGoodPath(cfg))
		if keptErr != nil {
			out.Aside = keptErr
		} else {
			again := l.resolver(ctx, path)
			again.values, again.away, again.lastGood = r.values, map[string]error{}, kept
			again.remote = func(scheme, name string) (string, error) { return "", r.away[scheme+":"+name] }
			cfg, err = parseAll(path, data, again)
		}
	}
	maps.Copy(out.Files, r.files)
	out.Remote = r.asked
	if cfg != nil {
		if cfg.TLS != nil {
			for _, f := range []string{cfg.TLS.Cert, cfg.TLS.Key} {
				out.Files[f] = Fingerprint(f)
			}
		}
		if cfg.LastGood.On {
			out.LastGood = lastGoodPath(cfg)
		}
	}
	if err != nil {
		return out, err
	}
	out.Config, out.values = cfg, r.values
	return out, nil
}

// Fingerprint tells whether what lies at path is another file than before,
// without reading it; links are followed.
func Fingerprint(path string) string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "absent"
	}
	info, err := os.Stat(real)
	if err != nil {
		return "absent"
	}
	return fmt.Sprint(real, info.Size(), info.ModTime().UnixNano(), info.Mode())
}

func (l *Loader) resolver(ctx context.Context, path string) *resolver {
	r := newResolver(l.Getenv, filepath.Dir(path))
	wait := l.Wait
	if wait <= 0 {
		wait = 5 * time.Second
	}
	gone := map[string]error{}
	r.remote = func(scheme, name string) (string, error) {
		source := l.Sources[scheme]
		switch {
		case source == nil:
			return "", errors.New("there is no such source here")
		case gone[scheme] != nil:
			return "", gone[scheme]
		}
		one, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		v, err := source(one, name)
		if errors.Is(err, ErrUnreachable) || one.Err() != nil && err != nil {
			gone[scheme] = err
		}
		return v, err
	}
	return r
}

// onlyOutOfReach says whether the file is without mistakes of its own.
func onlyOutOfReach(err error) bool {
	var ps Problems
	if !errors.As(err, &ps) || len(ps) == 0 {
		return false
	}
	for _, p := range ps {
		if !p.OutOfReach {
			return false
		}
	}
	return true
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, Problems{{File: path, Message: "the file " + reason(err), Hint: "give another with --config FILE"}}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, Problems{{File: path, Message: "the file " + reason(err)}}
	}
	return data, nil
}

// errLoose is why a cache of secrets is not read.
func errLoose(path string, mode fs.FileMode) error {
	return fmt.Errorf("%s has mode %04o: others can read or write it, so it is not used; give it 0600", path, mode)
}
