package awssecret

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
)

// fake speaks enough of both services' JSON protocol, with a latency of choice.
func fake(t *testing.T) {
	t.Helper()
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in map[string]any
		body, _ := io.ReadAll(r.Body)
		if json.Unmarshal(body, &in) != nil || !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKIDTEST/") {
			http.Error(w, "not signed", http.StatusForbidden)
			return
		}
		answer := func(status int, v any) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(v)
		}
		name, _ := in["SecretId"].(string)
		if name == "" {
			name, _ = in["Name"].(string)
			if in["WithDecryption"] != true {
				answer(400, map[string]string{"__type": "ValidationException", "message": "want decryption"})
				return
			}
		}
		switch r.Header.Get("X-Amz-Target") + " " + name {
		case "secretsmanager.GetSecretValue plain":
			answer(200, map[string]any{"Name": name, "SecretString": "hush"})
		case "secretsmanager.GetSecretValue arn:aws:secretsmanager:eu-west-1:1:secret:prod/pusher-AbC":
			answer(200, map[string]any{"Name": name, "SecretString": `{"secret":"hush-2","port":1}`})
		case "secretsmanager.GetSecretValue binary":
			answer(200, map[string]any{"Name": name, "SecretBinary": "aGk="})
		case "secretsmanager.GetSecretValue slow":
			select {
			case <-r.Context().Done():
			case <-release:
			}
		case "AmazonSSM.GetParameter /prod/pusher/secret":
			answer(200, map[string]any{"Parameter": map[string]any{"Name": name, "Value": "hush-3", "Type": "SecureString"}})
		default:
			answer(400, map[string]string{"__type": "ResourceNotFoundException", "message": "no such thing"})
		}
	}))
	t.Cleanup(func() { close(release); srv.Close() })
	env(t, srv.URL)
}

func env(t *testing.T, endpoint string) {
	for k, v := range map[string]string{"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "x",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"} {
		t.Setenv(k, v)
	}
}

func TestReferences(t *testing.T) {
	fake(t)
	sources := Sources()
	for _, k := range []struct{ scheme, name, want, fail string }{
		{"aws-sm", "plain", "hush", ""},
		{"aws-sm", "arn:aws:secretsmanager:eu-west-1:1:secret:prod/pusher-AbC#secret", "hush-2", ""},
		{"aws-sm", "arn:aws:secretsmanager:eu-west-1:1:secret:prod/pusher-AbC#port", "", `no string under "port"`},
		{"aws-sm", "plain#key", "", "is no JSON object"},
		{"aws-sm", "binary", "", "is binary"},
		{"aws-sm", "nosuch", "", "ResourceNotFoundException: no such thing"},
		{"aws-ssm", "/prod/pusher/secret", "hush-3", ""},
		{"aws-ssm", "/nosuch", "", "ResourceNotFoundException"},
	} {
		got, err := sources[k.scheme](context.Background(), k.name)
		if got != k.want || (err == nil) != (k.fail == "") || err != nil && !strings.Contains(err.Error(), k.fail) {
			t.Errorf("%s:%s = %q, %v", k.scheme, k.name, got, err)
		}
		if err != nil && (strings.Contains(err.Error(), "hush") || errors.Is(err, config.ErrUnreachable)) {
			t.Errorf("%s:%s: AWS answered, but the error is %v", k.scheme, k.name, err)
		}
	}
}

func TestAServiceThatHangsIsLeftInTime(t *testing.T) {
	fake(t)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := Sources()["aws-sm"](ctx, "slow")
	if !errors.Is(err, config.ErrUnreachable) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

func TestNobodyListens(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	env(t, "http://"+ln.Addr().String())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := Sources()["aws-ssm"](ctx, "/x"); !errors.Is(err, config.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}
