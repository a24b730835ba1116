package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
)

// The Kubernetes manifests cannot be applied in a test; what can be said of
// them without a cluster is said here, above all that the config inside is one
// that pushguard takes.
func TestKubernetesManifests(t *testing.T) {
	text, err := os.ReadFile("../../deploy/kubernetes/pushguard.yaml")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]map[string]any{}
	for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var doc map[string]any
		if err := dec.Decode(&doc); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		kinds[doc["kind"].(string)] = doc
	}
	for _, kind := range []string{"ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} {
		if kinds[kind] == nil {
			t.Fatalf("no %s", kind)
		}
	}
	at := func(v any, path string) any {
		for key := range strings.SplitSeq(path, "/") {
			switch x := v.(type) {
			case map[string]any:
				v = x[key]
			case []any:
				v = x[0].(map[string]any)[key]
			}
		}
		return v
	}
	secrets := t.TempDir()
	for name, value := range map[string]string{"admin-token": "a-token-that-is-long", "read-token": "another-token-that-is-long", "redis-url": "redis://:pw@redis:6379/0", "pusher": "hush"} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inside := strings.ReplaceAll(at(kinds["ConfigMap"], "data").(map[string]any)["pushguard.yaml"].(string), "/run/secrets/pushguard", secrets)
	cfg, err := config.Parse("pushguard.yaml", []byte(inside), func(k string) string { return map[string]string{"POD_NAME": "pushguard-0"}[k] })
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("warnings: %v", cfg.Warnings)
	}
	pod := at(kinds["Deployment"], "spec/template/spec")
	grace := time.Duration(at(pod, "terminationGracePeriodSeconds").(uint64)) * time.Second
	if grace < cfg.DrainDelay+30*time.Second {
		t.Errorf("Kubernetes kills after %s, but draining may take %s and 30 s", grace, cfg.DrainDelay)
	}
	for path, want := range map[string]any{
		"securityContext/runAsNonRoot":                        true,
		"containers/securityContext/readOnlyRootFilesystem":   true,
		"containers/securityContext/allowPrivilegeEscalation": false,
		"containers/readinessProbe/httpGet/path":              "/readyz",
		"containers/livenessProbe/httpGet/path":               "/healthz",
		"containers/startupProbe/httpGet/path":                "/readyz",
		"automountServiceAccountToken":                        false,
	} {
		if got := at(pod, path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if got := at(kinds["Deployment"], "spec/strategy/rollingUpdate/maxUnavailable"); got != uint64(0) {
		t.Errorf("maxUnavailable is %v: a version that does not become ready would take a place", got)
	}
	if pdb := at(kinds["PodDisruptionBudget"], "spec/minAvailable").(uint64); pdb >= at(kinds["Deployment"], "spec/replicas").(uint64) {
		t.Errorf("minAvailable %d lets no node be drained", pdb)
	}
}

// The chart is rendered by Go's own templates, with those of helm's functions that it uses: what comes out is read as
// YAML, and the config inside as pushguard reads it. helm lint is not run here.
func TestHelmChart(t *testing.T) {
	const chart = "../../deploy/helm/pushguard/"
	text, err := os.ReadFile(chart + "values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	values["serviceMonitor"].(map[string]any)["enabled"] = true
	root := template.New("chart")
	root.Funcs(template.FuncMap{
		"include": func(name string, data any) (string, error) {
			var b bytes.Buffer
			err := root.ExecuteTemplate(&b, name, data)
			return strings.Trim(b.String(), "\n"), err
		},
		"nindent": func(n int, s string) string {
			pad := "\n" + strings.Repeat(" ", n)
			return pad + strings.ReplaceAll(s, "\n", pad)
		},
		"toYaml": func(v any) (string, error) {
			b, err := yaml.Marshal(v)
			return strings.TrimRight(string(b), "\n"), err
		},
		"trunc":      func(n int, s string) string { return s[:min(n, len(s))] },
		"trimSuffix": func(suffix, s string) string { return strings.TrimSuffix(s, suffix) },
		"quote":      strconv.Quote,
	})
	files, err := filepath.Glob(chart + "templates/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no templates", err)
	}
	if _, err := root.ParseFiles(files...); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]map[string]any{}
	data := map[string]any{"Values": values, "Release": map[string]any{"Name": "guard"}}
	for _, f := range files {
		if strings.HasSuffix(f, ".tpl") {
			continue
		}
		var out bytes.Buffer
		if err := root.ExecuteTemplate(&out, filepath.Base(f), data); err != nil {
			t.Fatal(err)
		}
		for dec := yaml.NewDecoder(&out); ; {
			var doc map[string]any
			if err := dec.Decode(&doc); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			kinds[doc["kind"].(string)] = doc
		}
	}
	for _, kind := range []string{"ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "ServiceMonitor"} {
		if kinds[kind] == nil {
			t.Errorf("no %s", kind)
		}
	}
	secrets := t.TempDir()
	for name, value := range map[string]string{"admin-token": "a-token-that-is-long", "read-token": "another-token-that-is-long", "redis-url": "redis://:pw@redis:6379/0", "pusher": "hush"} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inside := strings.ReplaceAll(kinds["ConfigMap"]["data"].(map[string]any)["pushguard.yaml"].(string), "/run/secrets/pushguard", secrets)
	cfg, err := config.Parse("pushguard.yaml", []byte(inside), func(k string) string { return map[string]string{"POD_NAME": "guard-0"}[k] })
	if err != nil {
		t.Fatalf("%v\n%s", err, inside)
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("warnings: %v", cfg.Warnings)
	}
}

// The config that docker compose mounts is one that pushguard takes from the variables that its file names.
func TestComposeConfig(t *testing.T) {
	cfg, err := config.Load("../../deploy/compose/pushguard.yaml", func(k string) string {
		return map[string]string{"PUSHER_APP_ID": "1234", "PUSHER_KEY": "key-1", "PUSHER_SECRET": "hush", "PUSHER_CLUSTER": "eu", "PUSHGUARD_PLAN": "startup",
			"PUSHGUARD_ADMIN_TOKEN": "a-token-that-is-long", "PUSHGUARD_READ_TOKEN": "another-token-that-is-long"}[k]
	})
	if err != nil || len(cfg.Warnings) > 0 {
		t.Fatalf("%v, warnings %v", err, cfg)
	}
}
