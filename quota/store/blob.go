package store

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

var blobScript = script(`redis.call('SET', KEYS[1], ARGV[1])
return {'OK'}`)

// PutBlob keeps one value of an account under a name; the last writer wins.
func (s *Store) PutBlob(ctx context.Context, account, name string, value []byte) error {
	_, err := s.run(ctx, blobScript, []string{blobKey(account, name)}, value)
	return err
}

// GetBlob returns what PutBlob kept, nil if nothing.
func (s *Store) GetBlob(ctx context.Context, account, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	b, err := s.rdb.Get(ctx, blobKey(account, name)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return b, s.failed(err)
}
