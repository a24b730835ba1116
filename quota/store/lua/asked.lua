-- What the replicas of one app ask Pusher by themselves: how much of it today, and who polls.
-- KEYS: asked, and for `done` also occupied.
-- ARGV: 1 verb, 2 now ms, 3 keep s, then by verb.
local now = num(ARGV[2])

-- pay counts n messages of the day, unless that is more than most.
local function pay(day, n, most)
  if num(redis.call('HGET', KEYS[1], 'day')) < day then
    redis.call('HSET', KEYS[1], 'day', str(day), 'spent', '0')
  end
  local spent = num(redis.call('HGET', KEYS[1], 'spent'))
  if spent + n > most then return false, spent end
  redis.call('HSET', KEYS[1], 'spent', str(spent + n))
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  return true, spent + n
end

if ARGV[1] == 'pay' then -- 4 day, 5 n, 6 most
  local ok, spent = pay(num(ARGV[4]), num(ARGV[5]), num(ARGV[6]))
  return {'OK', ok and '1' or '0', str(spent)}
end

if ARGV[1] == 'poll' then -- 4 day, 5 n, 6 most, 7 every ms, 8 claim ms, 9 replica
  local at, till = num(redis.call('HGET', KEYS[1], 'at')), num(redis.call('HGET', KEYS[1], 'till'))
  local every, claim = num(ARGV[7]), num(ARGV[8])
  -- What lies further ahead than it can was written by a clock that went wrong.
  local due = now >= at + every or at > now + every
  local free = now >= till or till > now + 2 * claim
  local ok, spent = false, num(redis.call('HGET', KEYS[1], 'spent'))
  if due and free then
    ok, spent = pay(num(ARGV[4]), num(ARGV[5]), num(ARGV[6]))
    if ok then redis.call('HSET', KEYS[1], 'till', str(now + claim), 'by', ARGV[9]) end
  end
  return {'OK', ok and '1' or '0', str(spent), str(at)}
end

-- done: 4 asked ms, 5 the list, 6 keep the list s
if num(ARGV[4]) > num(redis.call('HGET', KEYS[1], 'at')) or num(redis.call('HGET', KEYS[1], 'at')) > now + 60000 then
  redis.call('HSET', KEYS[1], 'at', ARGV[4])
  redis.call('HDEL', KEYS[1], 'till', 'by')
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  redis.call('SET', KEYS[2], ARGV[5], 'EX', ARGV[6])
end
return {'OK'}
