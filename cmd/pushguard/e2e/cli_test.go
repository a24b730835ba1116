package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The stories in testdata, told in the words that an operator types. Beside the
// usual commands of testscript there are
//
//	exits CODE pushguard …   runs it and wants this exit code
//	await FILE               waits for an --addr-file; its addresses are in $DATA and $ADMIN
func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			bin := filepath.Join(env.WorkDir, "bin")
			if err := os.Mkdir(bin, 0o755); err != nil {
				return err
			}
			if err := os.Symlink(binary(), filepath.Join(bin, "pushguard")); err != nil {
				return err
			}
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("FILE_SECRET", fileSecret)
			env.Setenv("APP_SECRET", appSecret)
			env.Setenv("ADMIN_TOKEN", adminToken)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"await": await,
		},
	})
}

// exits runs a program and compares its exit code. What it wrote is in stdout
// and stderr for the commands that look there, and in the sweep for secrets.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGUMENT...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	out := logs.open("script " + strings.Join(args[1:], " "))
	for _, name := range []string{"stdout", "stderr"} {
		_, _ = out.Write([]byte(ts.ReadFile(name)))
	}
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// await waits for a file, such as an --addr-file, and puts its addresses into
// $DATA and $ADMIN.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await ADDR-FILE")
	}
	file := ts.MkAbs(args[0])
	found := waitFor(func() bool { _, err := os.Stat(file); return err == nil })
	if !found {
		ts.Fatalf("%s was not written", args[0])
	}
	b := ts.ReadFile(args[0])
	for name, where := range map[string]*regexp.Regexp{"DATA": dataAddress, "ADMIN": adminAddress} {
		if m := where.FindStringSubmatch(b); m != nil {
			ts.Setenv(name, m[1])
		}
	}
}

var (
	dataAddress  = regexp.MustCompile(`"data":"([^"]+)"`)
	adminAddress = regexp.MustCompile(`"admin":"([^"]+)"`)
)

// Every command that --help names answers --help itself, with an example, on
// stdout, and leaves with 0.
func TestEveryCommandShowsAnExample(t *testing.T) {
	top, _, code := command(t, "--help")
	if code != 0 {
		t.Fatalf("--help leaves with %d", code)
	}
	_, list, found := strings.Cut(top, "Commands:\n")
	if !found {
		t.Fatalf("--help lists no commands:\n%s", top)
	}
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+(?: [a-z]+)*)(?:  |$| \[| <)`).FindAllStringSubmatch(list, -1) {
		names = append(names, m[1])
	}
	for _, want := range []string{"serve", "demo", "check", "status", "brake on", "brake off", "plan set", "usage set", "sim", "version"} {
		if !slices.Contains(names, want) {
			t.Errorf("--help does not list %s, only %q", want, names)
		}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			out, errs, code := command(t, append(strings.Fields(name), "--help")...)
			if code != 0 || errs != "" {
				t.Errorf("leaves with %d, stderr %q", code, errs)
			}
			_, after, found := strings.Cut(out, "Example")
			if !found || !strings.Contains(after, "pushguard "+name) {
				t.Errorf("shows no example of itself:\n%s", out)
			}
			after, _, _ = strings.Cut(after, "Flags:")
			if n := strings.Count(after, "\n    pushguard "); n > 1 && !strings.HasPrefix(after, "s:") {
				t.Errorf("calls %d examples one:\n%s", n, out)
			}
		})
	}
}

// What a flag is when it is not given stands in its help, and --version works as everywhere.
func TestHelpTellsDefaults(t *testing.T) {
	for name, want := range map[string]string{"load": "How long. Default: 10s.", "top": "How many lines. Default: 20.", "demo": "Default: 60s.", "sim": "Default: 127.0.0.1:6001."} {
		if out, _, _ := command(t, name, "--help"); !strings.Contains(out, want) {
			t.Errorf("%s --help does not say %q:\n%s", name, want, out)
		}
	}
	long, errs, code := command(t, "--version")
	if short, _, _ := command(t, "version"); code != 0 || errs != "" || long != short {
		t.Errorf("--version leaves with %d: %q %q, not %q", code, long, errs, short)
	}
}

// command runs pushguard with an environment that says nothing to it.
func command(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs strings.Builder
	cmd := exec.Command(binary(), args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = cleanEnv(), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	_, _ = logs.open("pushguard " + strings.Join(args, " ")).Write([]byte(out.String() + errs.String()))
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
