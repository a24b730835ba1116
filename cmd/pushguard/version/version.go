// Package version says which build this is.
package version

import (
	"cmp"
	"runtime/debug"
	"strings"
)

// version is set by the linker in a release; otherwise the build's own record
// is used.
var version = ""

// Build is the version and, where the build knows it, the commit, by any way
// of building: go install of a tag, go build in a clone (with a * if it was
// changed), a release.
func Build() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(version, "unknown")
	}
	return describe(version, info)
}

func describe(version string, info *debug.BuildInfo) string {
	commit, changed := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(len(s.Value), 12)]
		case "vcs.modified":
			if s.Value == "true" {
				changed = "*"
			}
		}
	}
	if version == "" && info.Main.Version != "(devel)" {
		version = info.Main.Version
	}
	// A pseudo-version has the commit in it already.
	if commit == "" || strings.Contains(version, commit) {
		return cmp.Or(version, "devel (built without its repository)")
	}
	return cmp.Or(version, "devel") + " (" + commit + changed + ")"
}
