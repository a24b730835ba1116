package version

import (
	"runtime/debug"
	"testing"
)

func TestDescribe(t *testing.T) {
	setting := func(kv ...string) *debug.BuildInfo {
		info := &debug.BuildInfo{}
		info.Main.Version = kv[0]
		for i := 1; i < len(kv); i += 2 {
			info.Settings = append(info.Settings, debug.BuildSetting{Key: kv[i], Value: kv[i+1]})
		}
		return info
	}
	for _, c := range []struct {
		linked string
		info   *debug.BuildInfo
		want   string
	}{
		{"v1.2.0", setting("(devel)", "vcs.revision", "0123456789abcdef"), "v1.2.0 (0123456789ab)"},
		{"", setting("v1.2.0"), "v1.2.0"},
		{"", setting("(devel)", "vcs.revision", "0123456789abcdef", "vcs.modified", "true"), "devel (0123456789ab*)"},
		{"", setting("v0.0.0-20261130202141-0123456789ab", "vcs.revision", "0123456789abcdef"), "v0.0.0-20261130202141-0123456789ab"},
		{"", setting("(devel)"), "devel (built without its repository)"},
	} {
		if got := describe(c.linked, c.info); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
