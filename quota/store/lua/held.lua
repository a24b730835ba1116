-- Publishes that were answered and wait to be sent. A held one has an id, by which a newer one replaces it; one that
-- a replica has claimed has a token of its own, so that a newer one may be held beside it.
-- KEYS: due (zset id → ms), body (hash id → body), out (zset token → ms), outbody (hash token → id, newline, body),
-- busy (hash id → the token it is claimed under; true only while that token is in outbody), paced (zset id → ms before
-- which no other of that id may be due). An id that ends in ~N goes out once in N ms.
-- ARGV: 1 op, 2.. the op's own.
local op = ARGV[1]
local out = {'OK'}
local function over(token)
  local both = redis.call('HGET', KEYS[4], token)
  if both then
    local cut = string.find(both, '\n', 1, true)
    local id = string.sub(both, 1, cut - 1)
    if redis.call('HGET', KEYS[5], id) == token then
      redis.call('HDEL', KEYS[5], id)
    end
    redis.call('ZREM', KEYS[3], token)
    redis.call('HDEL', KEYS[4], token)
    return id, string.sub(both, cut + 1)
  end
  redis.call('ZREM', KEYS[3], token)
end
local function sending(id)
  local token = redis.call('HGET', KEYS[5], id)
  return token and redis.call('HEXISTS', KEYS[4], token) == 1
end
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
  -- 2..: id, due, body each. Puts the body in the place of one that waits, or behind one that is being sent, so that the
  -- newest is the last; answers 1, or 0 where there is none.
  for i = 2, #ARGV, 3 do
    if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
      redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2])
      out[#out + 1] = '1'
    elseif sending(ARGV[i]) then
      redis.call('ZADD', KEYS[1], ARGV[i + 1], ARGV[i])
      redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2])
      out[#out + 1] = '1'
    else
      out[#out + 1] = '0'
    end
  end
elseif op == 'pace' then
  -- 2 most, 3 now; then id, body each. Answers '2' where one waits already, '0' for no room; '1' and when it is due.
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', ARGV[3])
  local room = num(ARGV[2]) - math.max(num(redis.call('ZCARD', KEYS[1])), num(redis.call('ZCARD', KEYS[6])))
  for i = 4, #ARGV, 2 do
    local known = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if known then
      redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
      out[#out + 1] = '2' .. str(num(known))
    elseif room > 0 then
      room = room - 1
      local due = math.max(num(ARGV[3]), num(redis.call('ZSCORE', KEYS[6], ARGV[i])))
      redis.call('ZADD', KEYS[1], str(due), ARGV[i])
      redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
      out[#out + 1] = '1' .. str(due)
    else
      out[#out + 1] = '0'
    end
  end
elseif op == 'claim' then
  -- 2 now, 3 until, 4 limit, 5 prefix of new tokens. Answers what waits, what of that is overdue and what is out, as
  -- it was before; then token, again, body each. First what dead replicas claimed and never settled.
  out[#out + 1] = str(redis.call('ZCARD', KEYS[1]))
  out[#out + 1] = str(redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[2]))
  out[#out + 1] = str(redis.call('ZCARD', KEYS[3]))
  local limit = num(ARGV[4])
  local stale = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[2], 'LIMIT', '0', ARGV[4])
  for _, token in ipairs(stale) do
    local both = redis.call('HGET', KEYS[4], token) or ''
    local id = string.sub(both, 1, (string.find(both, '\n', 1, true) or 1) - 1)
    if redis.call('ZSCORE', KEYS[1], id) then
      over(token) -- a newer one was accepted since: sent now, the old one would be the last word
    else
      redis.call('ZADD', KEYS[3], ARGV[3], token)
      local every = string.match(id, '~(%d+)$')
      if every then redis.call('ZADD', KEYS[6], str(num(ARGV[2]) + num(every)), id) end
      out[#out + 1] = token
      out[#out + 1] = '1'
      out[#out + 1] = both
      limit = limit - 1
    end
  end
  -- Then what is due, but not what follows one of its id that is still being sent: it could overtake that.
  local out_now = num(redis.call('ZCARD', KEYS[3]))
  local ids = limit > 0 and redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2], 'LIMIT', '0', str(limit + out_now)) or {}
  for n, id in ipairs(ids) do
    local before = redis.call('HGET', KEYS[5], id)
    if limit > 0 and not (before and redis.call('HEXISTS', KEYS[4], before) == 1) then
      local token = ARGV[5] .. str(n)
      local body = id .. '\n' .. (redis.call('HGET', KEYS[2], id) or '')
      redis.call('ZREM', KEYS[1], id)
      redis.call('HDEL', KEYS[2], id)
      redis.call('ZADD', KEYS[3], ARGV[3], token)
      redis.call('HSET', KEYS[4], token, body)
      redis.call('HSET', KEYS[5], id, token)
      local every = string.match(id, '~(%d+)$')
      if every then
        redis.call('ZADD', KEYS[6], str(num(ARGV[2]) + num(every)), id)
      end
      out[#out + 1] = token
      out[#out + 1] = '0'
      out[#out + 1] = body
      limit = limit - 1
    end
  end
elseif op == 'hasten' then
  -- 2 now, 3 how many to leave out, 4 limit. What is due later is due now, but for what goes out once in a time.
  -- Answers how many were hastened, and how many were passed over.
  local hastened, passed = 0, 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[2], '+inf', 'LIMIT', ARGV[3], ARGV[4])) do
    if string.match(id, '~%d+$') then
      passed = passed + 1
    else
      redis.call('ZADD', KEYS[1], ARGV[2], id)
      hastened = hastened + 1
    end
  end
  out[#out + 1] = str(hastened)
  out[#out + 1] = str(passed)
elseif op == 'inherit' then
  -- 2 prefix, 3 prefix of one's own. Tokens with the first and without the second are of a process that is dead: what it
  -- claimed can be claimed again at once. Answers how many.
  local n = 0
  for _, token in ipairs(redis.call('ZRANGE', KEYS[3], '0', '-1')) do
    if string.sub(token, 1, #ARGV[2]) == ARGV[2] and string.sub(token, 1, #ARGV[3]) ~= ARGV[3] then
      redis.call('ZADD', KEYS[3], '0', token)
      n = n + 1
    end
  end
  out[#out + 1] = str(n)
elseif op == 'settle' then
  -- 2.. tokens
  for i = 2, #ARGV do
    over(ARGV[i])
  end
elseif op == 'return' then
  -- 2 due, 3.. tokens. A newer one that was held meanwhile wins.
  for i = 3, #ARGV do
    local id, body = over(ARGV[i])
    if id and not redis.call('ZSCORE', KEYS[1], id) then
      redis.call('ZADD', KEYS[1], ARGV[2], id)
      redis.call('HSET', KEYS[2], id, body)
    end
  end
else
  return redis.error_reply('unknown op ' .. op)
end
return out
