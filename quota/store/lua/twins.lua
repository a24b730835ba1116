-- What was published, for all replicas: the same is sent once in a window.
-- KEYS: due (zset id → ms when it ends), state (hash id → 'p' and the claimant's token, or 'd' and when it was delivered).
-- ARGV: 1 now, 2 most entries, 3 seconds that an unused record is kept, then op, id, token, at, window, hold for each
-- (ms). One answer an op.
local due, state = KEYS[1], KEYS[2]
local now, most = num(ARGV[1]), num(ARGV[2])
local out = {'OK'}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', ARGV[1], 'LIMIT', '0', '500')) do
  redis.call('ZREM', due, id)
  redis.call('HDEL', state, id)
end
local count = num(redis.call('ZCARD', due))
local wrote = false
local function put(id, what, until_, known)
  if not known then
    if count >= most then return false end
    count = count + 1
  end
  redis.call('ZADD', due, str(until_), id)
  redis.call('HSET', state, id, what)
  wrote = true
  return true
end
for i = 4, #ARGV, 6 do
  local op, id, token, at, window, hold = ARGV[i], ARGV[i + 1], ARGV[i + 2], num(ARGV[i + 3]), num(ARGV[i + 4]), num(ARGV[i + 5])
  local ends = redis.call('ZSCORE', due, id)
  local what = ends and redis.call('HGET', state, id) or ''
  local is = string.sub(what, 1, 1)
  local live = ends and num(ends) > at
  local answer = '-'
  if op == 'c' then
    -- Claim. d and the end: delivered. p: another replica sends it. c: claimed. 0: no room.
    local delivered = is == 'd' and num(string.sub(what, 2)) or 0
    if live and is == 'd' and at < delivered + window then
      answer = 'd' .. str(math.min(num(ends), delivered + window))
    elseif live and is == 'p' and what ~= 'p' .. token then
      answer = 'p'
    elseif put(id, 'p' .. token, at + hold, ends) then
      answer = 'c'
    else
      answer = '0'
    end
  elseif op == 's' then
    -- It was delivered: true whoever claims it now.
    put(id, 'd' .. str(at), at + window, ends)
  elseif op == 'f' then
    -- It was not: whoever waits for it may try.
    if what == 'p' .. token then
      redis.call('ZREM', due, id)
      redis.call('HDEL', state, id)
      count = count - 1
    end
  elseif op == 'l' then
    if live and is == 'd' then
      answer = 'd' .. str(num(ends))
    elseif live then
      answer = 'p'
    end
  else
    return redis.error_reply('unknown op ' .. op)
  end
  out[#out + 1] = answer
end
if wrote then
  redis.call('EXPIRE', due, ARGV[3])
  redis.call('EXPIRE', state, ARGV[3])
end
return out
