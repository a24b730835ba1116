-- The whole embedded store as commands, at one moment. The first call tells the journal that this is the moment.
redis.call('PUSHGUARD.SNAPSHOT')
local out = {}
local function emit(cmd, key, values, chunk)
  local i = 1
  while i <= #values do
    local c = {cmd, key}
    for _ = 1, chunk do
      if i > #values then break end
      c[#c + 1] = values[i]
      i = i + 1
    end
    out[#out + 1] = c
  end
end
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'hash' then emit('HSET', key, redis.call('HGETALL', key), 500)
  elseif kind == 'list' then emit('RPUSH', key, redis.call('LRANGE', key, 0, -1), 500)
  elseif kind == 'set' then emit('SADD', key, redis.call('SMEMBERS', key), 500)
  elseif kind == 'zset' then
    local pairsOf, flipped = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES'), {}
    for i = 1, #pairsOf, 2 do flipped[i], flipped[i + 1] = pairsOf[i + 1], pairsOf[i] end
    emit('ZADD', key, flipped, 500)
  elseif kind == 'string' then out[#out + 1] = {'SET', key, redis.call('GET', key)}
  else error('cannot dump a ' .. kind) end
  local ttl = redis.call('PTTL', key)
  if ttl > 0 then out[#out + 1] = {'PEXPIRE', key, tostring(ttl)} end
end
return out
