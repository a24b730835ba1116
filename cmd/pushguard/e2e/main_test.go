package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pushguard/pushguard/bench/stage"
)

var update = flag.Bool("update", false, "rewrite docs/sdks/seen.md from what the SDKs see")

var scratch string // where this run builds

// binary is pushguard as it was built for this run. It is built within a test, or
// go test's cache would not know what of. A binary given from outside, such as a
// release, is tested as it is.
var binary = sync.OnceValue(func() string {
	if given := os.Getenv("PUSHGUARD_E2E_BINARY"); given != "" {
		return given
	}
	var flags []string
	if raceEnabled {
		flags = append(flags, "-race")
	}
	built, err := stage.Build(scratch, flags...)
	if err != nil {
		panic(err)
	}
	return built
})

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(main(m))
}

func main(m *testing.M) int {
	if err := prerequisites(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	dir, err := os.MkdirTemp("", "pushguard-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	scratch = dir
	code := m.Run()
	stopWorkers()
	if leaks := logs.sweep(); len(leaks) > 0 {
		fmt.Fprintf(os.Stderr, "--- FAIL: secrets in logs\n    %s\n", strings.Join(leaks, "\n    "))
		return 1
	}
	if testing.Verbose() {
		n, size := logs.size()
		fmt.Printf("--- searched %d outputs (%d bytes) for %d secrets and signatures: none found\n", n, size, len(secrets))
	}
	return code
}

// prerequisites names what is missing, all of it at once.
func prerequisites() error {
	var missing []string
	for _, name := range []string{"redis-server", "node"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	for _, name := range []string{"pusher", "pusher-js", "@soketi/soketi"} {
		if _, err := os.Stat(filepath.Join("node", "node_modules", filepath.FromSlash(name), "package.json")); err != nil {
			missing = append(missing, "npm package "+name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing: %s. Run .ci/deps", strings.Join(missing, ", "))
	}
	return nil
}

// The secrets of the tests. No log line of any process may hold one of them.
const (
	appID        = "1234"
	appKey       = "app-key"
	appSecret    = "zSecretOfTheAppItself4711"
	callerKey    = "caller-key"
	callerSecret = "zSecretOfTheCaller4712"
	adminToken   = "zTokenOfTheAdminPort4713"
	redisSecret  = "zPasswordOfRedis4714"
	masterKey    = "enNlY3JldC1tYXN0ZXIta2V5LW9mLXRoZS10ZXN0czE=" // 32 bytes
	wrongSecret  = "zNobodysSecret4715"
	fileSecret   = "zSecretFromAFile4716" // in the scripts
)

var secrets = []string{appSecret, callerSecret, adminToken, redisSecret, masterKey, wrongSecret, fileSecret}

// logs is everything that children wrote.
var logs corpus

// corpus keeps outputs for the sweep at the end.
type corpus struct {
	mu  sync.Mutex
	all []*output
}

// output is what one process wrote, stdout and stderr as they came.
type output struct {
	name string
	mu   sync.Mutex
	b    bytes.Buffer
}

func (c *corpus) open(name string) *output {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &output{name: name}
	c.all = append(c.all, o)
	return o
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// sweep names every line that must not be there, with what it should not hold
// taken out.
func (c *corpus) sweep() (leaks []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.all {
		for line := range strings.Lines(o.String()) {
			for _, s := range append([]string{"auth_signature="}, secrets...) {
				if strings.Contains(line, s) {
					line = strings.ReplaceAll(line, s, "<<<LEAK>>>")
					leaks = append(leaks, o.name+": "+strings.TrimSpace(line))
				}
			}
		}
	}
	return leaks
}

func (c *corpus) size() (n, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.all {
		size += len(o.String())
	}
	return len(c.all), size
}

// A sweep that cannot find anything proves nothing.
func TestSweepFindsSecrets(t *testing.T) {
	for _, line := range []string{
		"level=DEBUG msg=x secret=" + appSecret + "\n",
		`{"err":"Post \"http://127.0.0.1/apps/1/events?auth_key=k&auth_signature=00ff\": EOF"}` + "\n",
		"panic: " + adminToken,
	} {
		var c corpus
		fmt.Fprint(c.open("planted"), "an innocent line\n", line)
		if leaks := c.sweep(); len(leaks) != 1 {
			t.Errorf("%d leaks found in %q, want 1", len(leaks), line)
		}
	}
}
