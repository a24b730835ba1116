-- A replica found that the store forgot something (emptied, restored from an old file, failed over to a
-- server that lagged) and gives back all that it knows. Every replica does so once; the union is what was.
-- KEYS as in beat.lua. ARGV: 1 now ms, 2 id, 3 epoch known, 4 epoch proposed, 5 reader version, 6 keep s,
--   7 sv, 8 plan, 9 planname, 10 cfg, 11 exday, 12 exat, 13 exwhy, 14 brake,
--   then for each pot: rt, rs, adj, av, from, version, count, and count pairs of id and entry (the caller's own first),
--   count, and count pairs of id and entry of those that were closed lately and are in rt and rs: all of them whose beat is
--   from or later; from is 0 where that is not known.
--
-- What each replica knows is a picture of the store at the time of its last heartbeat, some older than others, and what
-- the store still has is one, too. A picture's rt is a rest, closed so long ago that all pictures have it, and entries
-- that are known by name. Of the rest the highest counts; of each name its newest entry counts, once, as closed or as
-- live. What one picture names and another has in its rest alone is in the rest, too, once both name from the same time
-- on. So each picture is in the count whole, which is never too low; and it is exact as long as no picture is older than
-- what is closed lately (beat.lua says how long that is).
local now, id, known, proposed = num(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local A = KEYS[1]
local a = call('HMGET', A, 'min', 'epoch', 'cg', 'sv', 'lost')
if a[1] and num(a[1]) > num(ARGV[5]) then return {'NEWER', a[1]} end
local epoch, cg, sv = a[2], num(a[3]), a[4] and num(a[4]) or -1
if not epoch or epoch == known then
  -- The first to notice: a new epoch makes every other replica speak up too, and until each has (or is
  -- taken for dead) no new lease is given; nor for a while after, for those that this one has not heard of yet.
  epoch, cg = proposed, cg + 1
  call('HSET', A, 'v', '1', 'min', '1', 'epoch', epoch, 'cg', str(cg), 'run', runID(), 'lost', str(now))
elseif not a[5] then
  call('HSET', A, 'lost', str(now)) -- one that knew nothing had begun it anew before
end
if num(ARGV[7]) > sv then
  call('HSET', A, 'sv', ARGV[7], 'plan', ARGV[8], 'planname', ARGV[9], 'cfg', ARGV[10],
    'exday', ARGV[11], 'exat', ARGV[12], 'exwhy', ARGV[13], 'brake', ARGV[14])
end
local i = 15
for p = 1, (#KEYS - 1) / 3 do
  local D, R, G = KEYS[3 * p - 1], KEYS[3 * p], KEYS[3 * p + 1]
  local d = call('HMGET', D, 'rt', 'rs', 'adj', 'av', 'hc', 'loss', 'hcg', 'from', 'cv')
  -- Each day's book is told by itself, and bears the epoch of the loss that it was last told after. What is closed
  -- from round hcg on, since that loss, is in hc. A release before this one needs hc, and has no from.
  local hc, hcg = num(d[5]), num(d[7])
  if d[6] ~= epoch then hc, hcg = 0, cg end
  if num(ARGV[i + 3]) > num(d[4]) then call('HSET', D, 'adj', ARGV[i + 2], 'av', ARGV[i + 3]) end
  -- What was never healed has all names. What a release before this one healed has no time from which on it names.
  local never = 1e15
  local from = d[8] and num(d[8]) or (d[7] and never or 1)
  local pictured = num(ARGV[i + 4])
  if pictured == 0 then pictured = never end
  from = math.max(from, pictured)
  local cv = math.max(num(d[9]), num(ARGV[i + 5])) + 1
  local n, at = num(ARGV[i + 6]), i + 7
  local live, named = {}, {}
  for j = at, at + 2 * n - 2, 2 do
    if ARGV[j] ~= id then live[ARGV[j]] = true end
  end
  local pt, ps = num(ARGV[i]), num(ARGV[i + 1])
  i = at + 2 * n + 1
  for j = i, i + 2 * num(ARGV[i - 1]) - 2, 2 do
    local e = unpackEntry(ARGV[j + 1])
    if e.beat >= from and not live[ARGV[j]] then
      named[ARGV[j]] = e
      pt, ps = pt - taken(e), ps - taken(e)
    end
  end
  i = i + 2 * num(ARGV[i - 1])

  local gone, sum = {}, 0
  local function isNamed(e) return e.beat >= from or e.cg >= hcg end -- the latter were closed since the loss
  local all = call('HGETALL', G)
  for j = 1, #all, 2 do
    local e = unpackEntry(all[j + 1])
    gone[all[j]] = e
    if isNamed(e) then sum = sum + taken(e) end
  end
  local rt, rs = math.max(num(d[1]) - sum, pt), math.max(num(d[2]) - sum, ps)
  local function forget(who, e)
    if isNamed(e) then sum = sum - taken(e) end
    if e.cg >= hcg then hc = hc - taken(e) end
    gone[who] = nil
    call('HDEL', G, who)
  end
  for who, e in pairs(named) do
    local have, g = call('HGET', R, who), gone[who]
    -- It was taken for dead, and has spoken since, or another heard of it later: there it counts in full.
    local lives = who == id or have and unpackEntry(have).seq > e.seq
    if not lives and not (g and g.seq >= e.seq and isNamed(g)) then
      if g then forget(who, g) end -- closed on older news
      e.cg = -1
      gone[who], sum = e, sum + taken(e)
      call('HSET', G, who, packEntry(e))
      call('HDEL', R, who)
    end
  end
  for _ = 1, n do
    local who, e = ARGV[at], unpackEntry(ARGV[at + 1])
    at = at + 2
    local g, have = gone[who], call('HGET', R, who)
    if g and g.seq < e.seq then -- it was closed on old news
      forget(who, g)
      g = nil
    end
    if not g and (not have or unpackEntry(have).seq < e.seq) then
      e.cg = (who == id) and cg or cg - 1
      if who == id then e.beat = now end
      call('HSET', R, who, packEntry(e))
    end
  end
  hc = math.max(hc, 0) -- a release before this one closes without counting here
  call('HSET', D, 'rt', str(rt + sum), 'rs', str(rs + sum), 'hc', str(hc), 'hcg', str(hcg), 'loss', epoch,
    'from', str(from), 'cv', str(cv))
  call('EXPIRE', D, ARGV[6])
  call('EXPIRE', R, ARGV[6])
  call('EXPIRE', G, ARGV[6])
end
return {'OK', epoch}
