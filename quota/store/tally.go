package store

import "context"

var tallyScript = script(`local out = {'OK'}
for i = 2, #ARGV do
  local n = num(ARGV[i])
  if n ~= 0 then call('HINCRBY', KEYS[1], str(i - 1), ARGV[i]) end
  out[i] = call('HGET', KEYS[1], str(i - 1)) or '0'
end
call('EXPIRE', KEYS[1], ARGV[1])
return out`)

// AddTally adds to an account's counts of a day and returns what they are for all replicas. A field has the number of
// its place, so places are only ever added. These counts explain the bill and are not the bill: a store that loses its
// data loses them.
func (s *Store) AddTally(ctx context.Context, account string, day int32, add []int64) (all []int64, err error) {
	args := make([]any, 0, 1+len(add))
	args = append(args, keepSeconds)
	for _, n := range add {
		args = append(args, n)
	}
	res, err := s.run(ctx, tallyScript, []string{tallyKey(account, day)}, args...)
	if err != nil {
		return nil, err
	}
	r := &reader{in: res}
	for range add {
		all = append(all, r.num())
	}
	return all, r.err
}
