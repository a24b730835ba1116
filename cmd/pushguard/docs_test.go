package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every metric that the code names is on the page of metrics.
func TestEveryMetricIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`"(pushguard_[a-z_]+[a-z])"|\bdesc\("([a-z_]+)"`)
	found := 0
	for _, root := range []string{".", "../../limiter", "../../pusher", "../../quota"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() && d.Name() == "node_modules" {
				return filepath.SkipDir
			}
			if d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range name.FindAllStringSubmatch(string(text), -1) {
				found++
				metric := m[1]
				if m[2] != "" {
					metric = "pushguard_" + m[2]
				}
				if !strings.Contains(string(page), strings.TrimSuffix(metric, "_bucket")) {
					t.Errorf("%s is in %s and not in docs/metrics.md", metric, path)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 40 {
		t.Errorf("only %d names were found: the test looks in the wrong place", found)
	}
}

// Every link between the pages leads somewhere.
func TestLinksBetweenPages(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]*)?\)`)
	head := regexp.MustCompile(`(?m)^#+ +(.*)$`)
	anchors := func(text string) map[string]bool {
		out := map[string]bool{}
		for _, m := range head.FindAllStringSubmatch(text, -1) {
			s := strings.ToLower(regexp.MustCompile("[`*.,:;()'’\"/?!%+=]").ReplaceAllString(m[1], ""))
			out["#"+strings.ReplaceAll(strings.TrimSpace(s), " ", "-")] = true
		}
		return out
	}
	var pages []string
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/*/*.md", "../../bench/RESULTS.md"} {
		more, _ := filepath.Glob(pattern)
		pages = append(pages, more...)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") || m[1] == "" && m[2] == "" || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}
			there, err := os.Stat(target)
			if err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
				continue
			}
			if m[2] == "" || there.IsDir() || filepath.Ext(target) != ".md" {
				continue
			}
			text, err := os.ReadFile(target)
			if err != nil {
				t.Fatal(err)
			}
			if !anchors(string(text))[strings.ToLower(m[2])] {
				t.Errorf("%s links to %s%s, where there is no such heading", page, m[1], m[2])
			}
		}
	}
	if len(pages) < 20 {
		t.Errorf("only %d pages", len(pages))
	}
}
