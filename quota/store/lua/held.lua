-- Publishes that were answered and wait to be sent. A held one has an id, by which a newer one replaces it; one that
-- a replica has claimed has a token of its own, so that a newer one may be held beside it.
-- KEYS: due (zset id → ms), body (hash id → body), out (zset token → ms), outbody (hash token → id, newline, body).
-- ARGV: 1 op, 2.. the op's own.
local op = ARGV[1]
local out = {'OK'}
if op == 'hold' then
  -- 2 most; then id, due, body each. Answers 1 held, 2 replaced an older one, 0 no room.
  local room = num(ARGV[2]) - num(redis.call('ZCARD', KEYS[1]))
  for i = 3, #ARGV, 3 do
    local known = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if known then
      redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2])
      out[#out + 1] = '2'
    elseif room > 0 then
      room = room - 1
      redis.call('ZADD', KEYS[1], ARGV[i + 1], ARGV[i])
      redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2])
      out[#out + 1] = '1'
    else
      out[#out + 1] = '0'
    end
  end
elseif op == 'swap' then
  -- 2..: id, body each. Puts the body in the place of one that waits; answers 1, or 0 where none does.
  for i = 2, #ARGV, 2 do
    if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
      redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
      out[#out + 1] = '1'
    else
      out[#out + 1] = '0'
    end
  end
elseif op == 'claim' then
  -- 2 now, 3 until, 4 limit, 5 prefix of new tokens. First what dead replicas claimed and never settled.
  local limit = num(ARGV[4])
  local stale = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[2], 'LIMIT', '0', ARGV[4])
  for _, token in ipairs(stale) do
    redis.call('ZADD', KEYS[3], ARGV[3], token)
    out[#out + 1] = token
    out[#out + 1] = '1'
    out[#out + 1] = redis.call('HGET', KEYS[4], token) or ''
    limit = limit - 1
  end
  if limit > 0 then
    local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2], 'LIMIT', '0', str(limit))
    for n, id in ipairs(ids) do
      local token = ARGV[5] .. str(n)
      local body = id .. '\n' .. (redis.call('HGET', KEYS[2], id) or '')
      redis.call('ZREM', KEYS[1], id)
      redis.call('HDEL', KEYS[2], id)
      redis.call('ZADD', KEYS[3], ARGV[3], token)
      redis.call('HSET', KEYS[4], token, body)
      out[#out + 1] = token
      out[#out + 1] = '0'
      out[#out + 1] = body
    end
  end
elseif op == 'settle' then
  -- 2.. tokens
  for i = 2, #ARGV do
    redis.call('ZREM', KEYS[3], ARGV[i])
    redis.call('HDEL', KEYS[4], ARGV[i])
  end
elseif op == 'return' then
  -- 2 due, 3.. tokens. A newer one that was held meanwhile wins.
  for i = 3, #ARGV do
    local both = redis.call('HGET', KEYS[4], ARGV[i])
    if both then
      local cut = string.find(both, '\n', 1, true)
      local id, body = string.sub(both, 1, cut - 1), string.sub(both, cut + 1)
      if not redis.call('ZSCORE', KEYS[1], id) then
        redis.call('ZADD', KEYS[1], ARGV[2], id)
        redis.call('HSET', KEYS[2], id, body)
      end
    end
    redis.call('ZREM', KEYS[3], ARGV[i])
    redis.call('HDEL', KEYS[4], ARGV[i])
  end
else
  return redis.error_reply('unknown op ' .. op)
end
return out
