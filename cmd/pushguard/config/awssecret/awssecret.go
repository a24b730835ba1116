// Package awssecret answers references to AWS Secrets Manager and to Systems
// Manager Parameter Store. Credentials, region and endpoints come from where
// every AWS tool takes them: environment, shared files, the instance's role
// (https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html).
//
// Nothing is read before the first reference is resolved, so a config without
// one never touches AWS.
package awssecret

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
)

// Sources are the schemes aws-sm and aws-ssm. They are safe for concurrent use
// and honour their context; an answer is not cached.
func Sources() map[string]config.Source {
	c := &clients{}
	return map[string]config.Source{"aws-sm": c.secret, "aws-ssm": c.parameter}
}

// clients are made once it is known that AWS is wanted; a failure to make them
// is tried again with the next question.
type clients struct {
	mu  sync.Mutex
	sm  *secretsmanager.Client
	ssm *ssm.Client
}

func (c *clients) connect(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sm != nil {
		return nil
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRetryMaxAttempts(2))
	if err != nil {
		return explain(err)
	}
	if cfg.Region == "" {
		return errors.New("no AWS region is set: set AWS_REGION")
	}
	c.sm, c.ssm = secretsmanager.NewFromConfig(cfg), ssm.NewFromConfig(cfg)
	return nil
}

// secret is NAME or NAME#key, the latter for one string of a secret that holds
// a JSON object. NAME may be an ARN.
func (c *clients) secret(ctx context.Context, ref string) (string, error) {
	if err := c.connect(ctx); err != nil {
		return "", err
	}
	name, key, one := strings.Cut(ref, "#")
	out, err := c.sm.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(name)})
	if err != nil {
		return "", explain(err)
	}
	if out.SecretString == nil {
		return "", errors.New("the secret is binary; store text")
	}
	if !one {
		return *out.SecretString, nil
	}
	var object map[string]any
	if json.Unmarshal([]byte(*out.SecretString), &object) != nil {
		return "", fmt.Errorf("the secret is no JSON object, so it has no key %q", key)
	}
	value, ok := object[key].(string)
	if !ok {
		return "", fmt.Errorf("the secret's JSON object has no string under %q", key)
	}
	return value, nil
}

// parameter is a parameter's name, decrypted.
func (c *clients) parameter(ctx context.Context, name string) (string, error) {
	if err := c.connect(ctx); err != nil {
		return "", err
	}
	out, err := c.ssm.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String(name), WithDecryption: aws.Bool(true)})
	if err != nil {
		return "", explain(err)
	}
	if out.Parameter == nil {
		return "", errors.New("the answer holds no parameter")
	}
	return aws.ToString(out.Parameter.Value), nil
}

// explain keeps of an SDK error what helps: its code and message if AWS
// answered, and that it did not if it did not. The rest repeats addresses and
// request ids.
func explain(err error) error {
	var api smithy.APIError
	var netErr net.Error
	switch {
	case errors.As(err, &api):
		if api.ErrorMessage() == "" {
			return errors.New("AWS says " + api.ErrorCode())
		}
		return fmt.Errorf("AWS says %s: %s", api.ErrorCode(), api.ErrorMessage())
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr):
		return fmt.Errorf("%w: AWS did not answer in time, or at all", config.ErrUnreachable)
	}
	return fmt.Errorf("%w: %w", config.ErrUnreachable, err)
}
