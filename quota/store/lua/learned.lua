-- A bounded log that every replica adds to and reads on from where it was.
-- KEYS: list, count. ARGV: 1 number read last, 2 message ('' for none), 3 kept, 4 keep s.
if ARGV[2] ~= '' then
  redis.call('RPUSH', KEYS[1], ARGV[2])
  redis.call('LTRIM', KEYS[1], -num(ARGV[3]), -1)
  redis.call('INCR', KEYS[2])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  redis.call('EXPIRE', KEYS[2], ARGV[4])
end
local newest, after = num(redis.call('GET', KEYS[2])), num(ARGV[1])
if after > newest then after = 0 end -- the log was lost
local n = math.min(newest - after, num(ARGV[3]))
local out = {'OK', str(newest)}
if n > 0 then
  for _, m in ipairs(redis.call('LRANGE', KEYS[1], -n, -1)) do out[#out + 1] = m end
end
return out
