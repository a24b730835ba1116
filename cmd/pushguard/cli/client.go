package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/user"
	"strings"
	"time"
)

// adminFlags say how to reach a running guard's admin port.
type adminFlags struct {
	Admin string `help:"Admin port of the running guard, host:port or URL." default:"127.0.0.1:8081" env:"PUSHGUARD_ADMIN" placeholder:"ADDR"`
	Token string `help:"Admin token. Better given in the environment than on the command line." env:"PUSHGUARD_ADMIN_TOKEN" placeholder:"TOKEN"`
}

// call sends one request to the admin API and reads the answer into out.
func (f *adminFlags) call(ctx context.Context, method, path string, in, out any) error {
	base := f.Admin
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(base, "/")+path, body)
	if err != nil {
		return Usage(fmt.Errorf("--admin %q: %w", f.Admin, err))
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if f.Token != "" {
		req.Header.Set("Authorization", "Bearer "+f.Token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the guard's admin port does not answer at %s (give --admin): %w", f.Admin, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct{ Error string }
		if json.Unmarshal(b, &e) != nil || e.Error == "" {
			e.Error = strings.TrimSpace(string(b))
		}
		if resp.StatusCode == http.StatusUnauthorized {
			return fmt.Errorf("the guard answered 401: %s", f.tokenHint())
		}
		return fmt.Errorf("the guard answered %d: %s", resp.StatusCode, e.Error)
	}
	return json.Unmarshal(b, out)
}

// tokenHint says what to do about a refused token, to somebody at a terminal.
func (f *adminFlags) tokenHint() string {
	if f.Token == "" {
		return "it wants its admin token (admin.token in its config): set PUSHGUARD_ADMIN_TOKEN to it, or give --token"
	}
	return "the token in PUSHGUARD_ADMIN_TOKEN or --token is not its admin token (admin.token in its config)"
}

// operator is the name that the audit trail gets.
func operator() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}
