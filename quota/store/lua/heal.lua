-- A replica found that the store forgot something (emptied, restored from an old file, failed over to a
-- server that lagged) and gives back all that it knows. Every replica does so once; the union is what was.
-- KEYS as in beat.lua. ARGV: 1 now ms, 2 id, 3 epoch known, 4 epoch proposed, 5 reader version, 6 keep s,
--   7 sv, 8 plan, 9 planname, 10 cfg, 11 exday, 12 exat, 13 exwhy, 14 brake,
--   then for each pot: rt, rs, adj, av, count, and count pairs of id and entry (the caller's own first).
local now, id, known, proposed = num(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local A = KEYS[1]
local a = redis.call('HMGET', A, 'min', 'epoch', 'cg', 'sv', 'lost')
if a[1] and num(a[1]) > num(ARGV[5]) then return {'NEWER', a[1]} end
local epoch, cg, sv = a[2], num(a[3]), a[4] and num(a[4]) or -1
if not epoch or epoch == known then
  -- The first to notice: a new epoch makes every other replica speak up too, and until each has (or is
  -- taken for dead) no new lease is given; nor for a while after, for those that this one has not heard of yet.
  epoch, cg = proposed, cg + 1
  redis.call('HSET', A, 'v', '1', 'min', '1', 'epoch', epoch, 'cg', str(cg), 'run', runID(), 'lost', str(now))
elseif not a[5] then
  redis.call('HSET', A, 'lost', str(now)) -- one that knew nothing had begun it anew before
end
if num(ARGV[7]) > sv then
  redis.call('HSET', A, 'sv', ARGV[7], 'plan', ARGV[8], 'planname', ARGV[9], 'cfg', ARGV[10],
    'exday', ARGV[11], 'exat', ARGV[12], 'exwhy', ARGV[13], 'brake', ARGV[14])
end
local i = 15
for p = 1, (#KEYS - 1) / 3 do
  local D, R, G = KEYS[3 * p - 1], KEYS[3 * p], KEYS[3 * p + 1]
  local d = redis.call('HMGET', D, 'rt', 'rs', 'adj', 'av')
  local rt, rs = math.max(num(d[1]), num(ARGV[i])), math.max(num(d[2]), num(ARGV[i + 1]))
  redis.call('HSET', D, 'rt', str(rt), 'rs', str(rs))
  if num(ARGV[i + 3]) > num(d[4]) then redis.call('HSET', D, 'adj', ARGV[i + 2], 'av', ARGV[i + 3]) end
  local n = num(ARGV[i + 4])
  i = i + 5
  for j = 1, n do
    local who, e = ARGV[i], unpackEntry(ARGV[i + 1])
    i = i + 2
    local gone = redis.call('HGET', G, who)
    local have = redis.call('HGET', R, who)
    if gone and unpackEntry(gone).seq < e.seq then
      -- It was closed on old news: undo, and let the newer entry stand.
      local g = unpackEntry(gone)
      local x = redis.call('HMGET', D, 'rt', 'rs')
      redis.call('HSET', D, 'rt', str(num(x[1]) - taken(g)), 'rs', str(num(x[2]) - taken(g)))
      redis.call('HDEL', G, who)
      gone = false
    end
    if not gone and (not have or unpackEntry(have).seq < e.seq) then
      e.cg = (who == id) and cg or cg - 1
      if who == id then e.beat = now end
      redis.call('HSET', R, who, packEntry(e))
    end
  end
  redis.call('EXPIRE', D, ARGV[6])
  redis.call('EXPIRE', R, ARGV[6])
  redis.call('EXPIRE', G, ARGV[6])
end
return {'OK', epoch}
