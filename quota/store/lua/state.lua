-- What people and Pusher say about the account: plan, usage, brake, exhausted; with its line in the audit trail.
-- KEYS: account, audit, day, live. ARGV: 1 op, 2 epoch known, 3 reader version, 4 audit line ('' for none),
--   5 audit length kept, 6.. the op's own.
local A, D, R = KEYS[1], KEYS[3], KEYS[4]
local a = redis.call('HMGET', A, 'min', 'epoch', 'sv')
if a[1] and num(a[1]) > num(ARGV[3]) then return {'NEWER', a[1]} end
if not a[2] then return {'LOST', 'the store is empty'} end
if a[2] ~= ARGV[2] then return {'LOST', 'the store was filled anew'} end
local op = ARGV[1]
if op == 'plan' then
  redis.call('HSET', A, 'plan', ARGV[6], 'planname', ARGV[7])
elseif op == 'brake' then
  -- With ARGV[7] it is changed only if it is still that.
  if ARGV[7] and (redis.call('HGET', A, 'brake') or '') ~= ARGV[7] then return {'OK', a[2], 'moved'} end
  redis.call('HSET', A, 'brake', ARGV[6])
elseif op == 'burn' then
  if num(redis.call('HGET', A, 'burnseq')) >= num(ARGV[6]) then return {'OK', a[2]} end
  redis.call('HSET', A, 'burnseq', ARGV[6], 'burn', ARGV[7])
elseif op == 'exhaust' then
  redis.call('HSET', A, 'exday', ARGV[6], 'exat', ARGV[7], 'exwhy', ARGV[8])
elseif op == 'reopen' then
  redis.call('HSET', A, 'exday', '', 'exat', '', 'exwhy', '')
elseif op == 'usage' then
  local d = redis.call('HMGET', D, 'rs', 'av')
  local S = num(d[1])
  local all = redis.call('HGETALL', R)
  for i = 2, #all, 2 do S = S + unpackEntry(all[i]).spent end
  redis.call('HSET', D, 'adj', str(num(ARGV[6]) - S), 'av', str(num(d[2]) + 1))
else
  return redis.error_reply('unknown op ' .. op)
end
redis.call('HSET', A, 'sv', str(num(a[3]) + 1))
if ARGV[4] ~= '' then
  audit(KEYS[2], ARGV[4], num(ARGV[5]))
end
return {'OK', a[2]}
