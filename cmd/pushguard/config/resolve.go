package config

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxValue bounds one resolved value, in bytes.
const maxValue = 64 << 10

// resolver fills in references. It reads the environment, files and sources
// while the file is loaded, and never again.
type resolver struct {
	getenv func(string) string
	read   func(path string) (string, error)
	dir    string // of the config file; relative paths start there

	remote   func(scheme, name string) (string, error) // nil: no source but environment and files
	lastGood map[string]string                         // reference → value, for those out of reach

	values map[string]string // reference → what it resolved to; each is asked for once
	away   map[string]error  // reference → why not
	files  map[string]string // referenced files, found or not, with their Fingerprint before they were read
	asked  bool              // whether a remote source was referred to
	kept   []string          // references that lastGood answered
	said   []string          // warnings about what references brought in
}

func newResolver(getenv func(string) string, dir string) *resolver {
	return &resolver{getenv: getenv, read: readSecretFile, dir: dir}
}

// expand replaces ${NAME} and ${file:/path} in s, and $$ by $; refs says
// whether there was a reference. What was brought in is not expanded again.
// The fault names the reference, never its value.
func (r *resolver) expand(s string) (out string, refs bool, err error) {
	if !strings.Contains(s, "$") {
		return s, false, nil
	}
	var b strings.Builder
	whole := s
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			s = s[i+2:]
		case '{':
			name, rest, ok := strings.Cut(s[i+2:], "}")
			if !ok {
				return "", true, fault{"has a ${ without its }", "close it, or write $${ for the two characters themselves"}
			}
			value, err := r.lookup(name)
			if err != nil {
				return "", true, err
			}
			at := len(whole) - len(s) + i
			b.WriteString(r.inURL(whole, at, at+len(name)+3, value, name))
			refs, s = true, rest
		default:
			b.WriteByte('$')
			s = s[i+1:]
		}
		if b.Len() > maxValue {
			return "", refs, fault{"is longer than 64 KiB once resolved", "no setting needs that much: check what the references bring in"}
		}
	}
	return b.String(), refs, nil
}

// lookup is the value of one reference: from its source, and where that is out
// of reach from the last good cache, if there is one.
func (r *resolver) lookup(name string) (string, error) {
	if r.values == nil {
		r.values, r.away = map[string]string{}, map[string]error{}
	}
	if v, ok := r.values[name]; ok {
		return v, nil
	}
	if err, ok := r.away[name]; ok {
		return "", err
	}
	v, err := r.source(name)
	if err == nil {
		v, err = r.trim(name, v)
	}
	if _, away := err.(outOfReach); away {
		if old, ok := r.lastGood[name]; ok {
			v, err = old, nil
			r.kept = append(r.kept, "${"+clip(name)+"}")
		}
	}
	if err != nil {
		r.away[name] = err
		return "", err
	}
	r.values[name] = v
	return v, nil
}

func (r *resolver) source(name string) (string, error) {
	if path, ok := strings.CutPrefix(name, "file:"); ok {
		return r.file(path)
	}
	ref := "${" + clip(name) + "}"
	if scheme, rest, ok := strings.Cut(name, ":"); ok {
		if !slices.Contains(remoteSchemes, scheme) {
			return "", fault{"refers to " + ref + ", whose source is unknown",
				didYouMean(scheme, append([]string{"file"}, remoteSchemes...), "write ${NAME} for an environment variable or ${file:/path} for a file")}
		}
		if rest == "" {
			return "", fault{"refers to " + ref + " without a name", "write ${" + scheme + ":NAME}"}
		}
		r.asked = true
		if r.remote == nil {
			return "", outOfReach{fault{"refers to " + ref + ", which cannot be asked here", "load the file with pushguard serve or check"}}
		}
		v, err := r.remote(scheme, rest)
		switch {
		case err != nil:
			return "", outOfReach{fault{"refers to " + ref + ", which cannot be had: " + printable(err.Error()), "check the name, this machine's rights, and the way to the service"}}
		case v == "":
			return "", outOfReach{fault{"refers to " + ref + ", which is empty", "write the value into it"}}
		}
		return v, nil
	}
	if !isVariable(name) {
		return "", fault{"refers to " + ref + ", which is no name of a variable",
			"write ${NAME} with letters, digits and _, ${file:/path}, or $${ for the two characters themselves"}
	}
	if r.getenv != nil {
		if v := r.getenv(name); v != "" {
			return v, nil
		}
	}
	return "", outOfReach{fault{"refers to the environment variable " + name + ", which is not set or empty",
		"set " + name + " before the start, or use ${file:/path}"}}
}

func (r *resolver) file(path string) (string, error) {
	if path == "" {
		return "", fault{"refers to ${file:} without a path", "write ${file:/run/secrets/name}"}
	}
	full := path
	if !filepath.IsAbs(full) {
		full = filepath.Join(r.dir, full)
	}
	if r.files == nil {
		r.files = map[string]string{}
	}
	if _, ok := r.files[full]; !ok {
		r.files[full] = Fingerprint(full)
	}
	text, err := r.read(full)
	refers := "refers to the file " + clip(path) + ", which "
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", outOfReach{fault{refers + "does not exist", "mount or write it, or check the path"}}
	case errors.Is(err, fs.ErrPermission):
		return "", outOfReach{fault{refers + "may not be read", "let pushguard's user read it"}}
	case err != nil:
		return "", outOfReach{fault{refers + reason(err), "give a readable regular file of at most 64 KiB"}}
	}
	text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	if text == "" {
		return "", outOfReach{fault{refers + "is empty", "write the value into it"}}
	}
	return text, nil
}

// reason is the system's own word, without the path that it repeats.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return "cannot be read: " + err.Error()
}

var errIrregular = errors.New("it is no regular file")
var errTooLong = errors.New("it is longer than 64 KiB")

// readSecretFile reads a regular file. Others (pipes, devices) could block the
// start or never end.
func readSecretFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errIrregular
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxValue+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxValue {
		return "", errTooLong
	}
	return string(data), nil
}

func isVariable(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// clip shortens what a message repeats from the file.
func clip(s string) string {
	if r := []rune(s); len(r) > 80 {
		s = string(r[:80]) + "…"
	}
	return printable(s)
}
