-- A replica found that the store forgot something (emptied, restored from an old file, failed over to a
-- server that lagged) and gives back all that it knows. Every replica does so once; the union is what was.
-- KEYS as in beat.lua. ARGV: 1 now ms, 2 id, 3 epoch known, 4 epoch proposed, 5 reader version, 6 keep s,
--   7 sv, 8 plan, 9 planname, 10 cfg, 11 exday, 12 exat, 13 exwhy, 14 brake,
--   then for each pot: rt, rs, adj, av, count, and count pairs of id and entry (the caller's own first),
--   count, and count pairs of id and entry of those that were closed lately and are in rt and rs.
--
-- What each replica knows is a picture of the store at the time of its last heartbeat, some older than others. Of
-- rt and rs the highest counts, and what has been closed since the loss, hc, comes on top. Who is live in one picture
-- and closed in another is closed; if it lives after all, it says so itself. Where pictures cannot be told apart the
-- count becomes too high, never too low.
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
  local d = redis.call('HMGET', D, 'rt', 'rs', 'adj', 'av', 'hc', 'loss', 'hcg')
  -- Each day's book is told by itself, and bears the epoch of the loss that it was last told after. What is closed
  -- from round hcg on is in hc.
  local hc, hcg = num(d[5]), num(d[7])
  if d[6] ~= epoch then hc, hcg = 0, cg end
  local rt, rs = num(d[1]) - hc, num(d[2]) - hc -- as all pictures so far have it
  local pt, ps = num(ARGV[i]), num(ARGV[i + 1]) -- as the caller's has it
  if num(ARGV[i + 3]) > num(d[4]) then redis.call('HSET', D, 'adj', ARGV[i + 2], 'av', ARGV[i + 3]) end
  local n, at = num(ARGV[i + 4]), i + 5
  i = at + 2 * n + 1
  local m = num(ARGV[i - 1])

  for j = 1, m do -- closed, and so in the caller's rt and rs
    local who, e = ARGV[i], unpackEntry(ARGV[i + 1])
    i = i + 2
    local gone, have = redis.call('HGET', G, who), redis.call('HGET', R, who)
    local g = gone and unpackEntry(gone)
    local newer = have and unpackEntry(have).seq > e.seq
    if who ~= id and (newer or g and g.seq > e.seq and g.cg >= hcg) then
      -- It was taken for dead, and has spoken since, or another heard of it later: there it counts in full.
      pt, ps = pt - taken(e), ps - taken(e)
    elseif who ~= id and not (g and g.seq > e.seq) then
      if g and g.cg >= hcg then hc = hc - taken(g) end -- closed once more since the loss, on older news
      e.cg = -1
      redis.call('HSET', G, who, packEntry(e))
      redis.call('HDEL', R, who)
    end
  end
  rt, rs = math.max(rt, pt), math.max(rs, ps)
  for j = 1, n do
    local who, e = ARGV[at], unpackEntry(ARGV[at + 1])
    at = at + 2
    local gone = redis.call('HGET', G, who)
    local have = redis.call('HGET', R, who)
    if gone and unpackEntry(gone).seq < e.seq then
      -- It was closed on old news: let the newer entry stand. What was closed before the loss may be in rt or not, and
      -- is left there.
      local g = unpackEntry(gone)
      if g.cg >= hcg then hc = hc - taken(g) end
      redis.call('HDEL', G, who)
      gone = false
    end
    if not gone and (not have or unpackEntry(have).seq < e.seq) then
      e.cg = (who == id) and cg or cg - 1
      if who == id then e.beat = now end
      redis.call('HSET', R, who, packEntry(e))
    end
  end
  hc = math.max(hc, 0) -- a release before this one closes without counting here
  redis.call('HSET', D, 'rt', str(rt + hc), 'rs', str(rs + hc), 'hc', str(hc), 'hcg', str(hcg), 'loss', epoch)
  redis.call('EXPIRE', D, ARGV[6])
  redis.call('EXPIRE', R, ARGV[6])
  redis.call('EXPIRE', G, ARGV[6])
end
return {'OK', epoch}
