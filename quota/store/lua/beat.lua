-- One heartbeat: report, hand back, renew, reclaim.
-- KEYS: account, then for each pot: day, live, gone.
-- ARGV: 1 now ms, 2 id, 3 seq, 4 epoch known, 5 epoch proposed, 6 mode (''|join|leave|bury), 7 ttl ms (negative: nobody else can be alive),
--       8 plan by config, 9 its name, 10 floor normal ppm, 11 floor critical ppm, 12 reader version, 13 keep s,
--       14 part of the day that is over, ppm, 15 '1' where the server is asked for its run id,
--       then for each pot: limit ppm (0: the plan itself), acked seq, ret, spent, over, idle, want 1..3, need 1..3,
--       the taken and the spent of closed replicas as last heard, and the version of that.
local now, id, seq = num(ARGV[1]), ARGV[2], num(ARGV[3])
local known, proposed, mode, ttl = ARGV[4], ARGV[5], ARGV[6], num(ARGV[7])
local A = KEYS[1]
local a = call('HMGET', A, 'min', 'epoch', 'run', 'cg', 'plan', 'planname', 'cfg', 'sv', 'lost', 'exday', 'exat', 'exwhy',
  'brake', 'burn')
if a[1] and num(a[1]) > num(ARGV[12]) then return {'NEWER', a[1]} end
local epoch, run, cg, sv, cfg = a[2], a[3] or '', num(a[4]), num(a[8]), a[7]
if not epoch then
  if known ~= '' then return {'LOST', 'the store is empty'} end
  epoch = proposed
  call('HSET', A, 'v', '1', 'min', '1', 'epoch', epoch, 'cg', '0', 'sv', '0', 'run', '')
elseif known ~= '' and known ~= epoch then
  return {'LOST', 'the store was filled anew'}
end
-- The config's plan counts when the account is new or the config changed; else what plan set said stays.
local plan, planname = num(a[5]), a[6] or ''
if a[5] and plan < 1 then error('the plan is no number') end
if not a[5] or (mode == 'join' and a[7] ~= ARGV[8]) then
  plan, planname, sv, cfg = num(ARGV[8]), ARGV[9], sv + 1, ARGV[8]
  call('HSET', A, 'plan', str(plan), 'planname', planname, 'cfg', ARGV[8], 'sv', str(sv))
end

-- Before anything is written: does the store still know what this replica was told?
local pots = (#KEYS - 1) / 3
local readOf, liveOf, mineOf, isLive = {}, {}, {}, {}
for p = 1, pots do
  local all, mine = call('HGETALL', KEYS[3 * p]), nil
  for i = 1, #all, 2 do
    if all[i] == id then
      mine, isLive[p] = unpackEntry(all[i + 1]), true
      break
    end
  end
  if not mine then
    local back = call('HGET', KEYS[3 * p + 1], id)
    mine = back and unpackEntry(back)
  end
  local acked = num(ARGV[15 + 15 * (p - 1) + 2])
  if acked > 0 and (not mine or mine.seq < acked) then
    return {'LOST', 'the store forgot this replica\'s last reports'}
  end
  readOf[p] = call('HMGET', KEYS[3 * p - 1], 'rt', 'rs', 'adj', 'av', 'hat', 'hid', 'hc', 't', 'cv', 'from', 'waste')
  liveOf[p], mineOf[p] = all, mine
end

local r = ARGV[15] == '1' and runID() or ''
if r ~= run then
  call('HSET', A, 'run', r)
  if run ~= '' then
    cg = cg + 1
    call('HSET', A, 'cg', str(cg))
  end
end

-- A share lends what its caller should have used by this time of the day and did not; what the rest of the day is
-- for is never lent. The lender takes its own again as it uses more: then the borrowers' limit sinks.
local shareOf, takenOf, idleOf, borrowed = {}, {}, {}, {}
local idleSum, borrowedSum = 0, 0
for p = 2, pots do
  shareOf[p] = math.floor(plan * num(ARGV[15 + 15 * (p - 1) + 1]) / 1e6)
  takenOf[p] = num(readOf[p][8])
  idleOf[p] = math.max(0, math.floor(shareOf[p] * num(ARGV[14]) / 1e6) - takenOf[p])
  borrowed[p] = math.max(0, takenOf[p] - shareOf[p])
  idleSum, borrowedSum = idleSum + idleOf[p], borrowedSum + borrowed[p]
end

-- What was closed lately, for a replica that has not heard of it: after a loss of data it tells those by name, so that
-- nobody is counted twice or forgotten. The last ten minutes, 128 at most; from says from which beat on they are all there.
local function closedLately(G, version, healed)
  local all, late, from = call('HGETALL', G), {}, math.max(num(healed), now - 600000, 1)
  for i = 1, #all, 2 do
    local beat = unpackEntry(all[i + 1]).beat
    if beat >= from then late[#late + 1] = {beat, all[i], all[i + 1]} end
  end
  if #late > 128 then
    table.sort(late, function(a, b) return a[1] > b[1] end)
    from = late[129][1] + 1
  end
  local list = {version, str(from)}
  for _, x in ipairs(late) do
    if x[1] >= from then
      list[#list + 1] = x[2]
      list[#list + 1] = x[3]
    end
  end
  return list
end
-- However often replicas come and go in a day, the last 1024 that are gone are known by name, for one that was taken for
-- dead and speaks again. What the others took stays in rt and rs; returns from which beat on none was forgotten.
local function forgetOldest(G)
  local all, known = call('HGETALL', G), {}
  for i = 1, #all, 2 do known[#known + 1] = {unpackEntry(all[i + 1]).beat, all[i]} end
  table.sort(known, function(a, b) return a[1] > b[1] end)
  for i = 1025, #known do call('HDEL', G, known[i][2]) end
  return known[1025][1] + 1
end
local closed = {}

local out = {'OK', epoch, r, '0', '0'}
-- Long enough for every live replica's next heartbeat, and for clocks that differ by two seconds. A clock that was
-- further off when the loss was found holds nobody up.
local lost = num(a[9])
local withheld, replicas = lost > 0 and now > lost - 3000 and now < lost + 3000, 0
for p = 1, pots do
  local D, R, G = KEYS[3 * p - 1], KEYS[3 * p], KEYS[3 * p + 1]
  local o = 15 + 15 * (p - 1)
  local d = readOf[p]
  local rt, rs, adj, av = num(d[1]), num(d[2]), num(d[3]), num(d[4])
  local hat, hid = num(d[5]), d[6]
  local hc = num(d[7]) -- the part of rt and rs that was closed since the last loss of data, see heal.lua
  local fresh = not d[1]
  local waste = num(d[11]) -- unspent tokens of replicas that fell silent

  local mine, all, turned = mineOf[p], liveOf[p], false -- turned: who is closed is not what it was
  if mine and not isLive[p] then -- taken for dead, yet here: its tokens are its own again
    rt, rs, turned = rt - taken(mine), rs - taken(mine), true
    waste = math.max(0, waste - taken(mine) + mine.spent)
    call('HDEL', G, id)
  end
  local e = mine or {seq = 0, cg = cg, beat = now, g = {0, 0, 0}, ret = 0, spent = 0, over = 0, idle = 0}
  local late = seq <= e.seq -- an old request that was stuck on the way: it changes nothing
  if mode == 'bury' then
    late = false
  elseif not late then
    e.seq, e.ret, e.spent, e.over, e.idle = seq, num(ARGV[o + 3]), num(ARGV[o + 4]), num(ARGV[o + 5]), num(ARGV[o + 6])
    e.beat, e.cg = now, cg
  end

  -- Everybody else: sum up, and close those that are silent for too long. What they held counts as spent.
  local T, S, others, vector = rt + adj, rs + adj, 0, {}
  local n = 1
  for i = 1, #all, 2 do
    if all[i] ~= id then
      local x = unpackEntry(all[i + 1])
      T = T + taken(x)
      -- What is far ahead was told by a clock that went wrong; nobody waits until then. If it lives it says so.
      if x.beat < now - ttl or x.beat > now + ttl then
        rt, rs, hc = rt + taken(x), rs + taken(x), hc + taken(x)
        S, waste = S + taken(x), waste + taken(x) - x.spent
        x.cg, turned = cg, true
        call('HSET', G, all[i], packEntry(x))
        call('HDEL', R, all[i])
      else
        n = n + 1
        S = S + x.spent
        others = others + x.idle
        if x.cg < cg then withheld = true end
        vector[#vector + 1] = all[i]
        vector[#vector + 1] = all[i + 1]
      end
    end
  end
  T, S = T + taken(e), S + e.spent
  if p == 1 then replicas = n end

  local hungry = '0'
  local L, fn, fc = plan, math.floor(plan * num(ARGV[10]) / 1e6), math.floor(plan * num(ARGV[11]) / 1e6)
  if p > 1 then
    fn, fc = 0, 0
    L = shareOf[p] + math.max(0, idleSum - idleOf[p] - (borrowedSum - borrowed[p]))
  end
  if not late and mode ~= 'leave' and mode ~= 'bury' then
    local lim = {L - fn - fc, L - fc, L}
    local unmet, met = false, false
    for c = 3, 1, -1 do
      local want, need = ARGV[o + 6 + c], ARGV[o + 9 + c]
      if want ~= '0' or need ~= '0' then
        want, need = num(want), num(need)
        if want < need then want = need end
        if withheld or lim[c] - T < need or lim[c] <= T then
          if need > 0 then unmet = true end
        else
          -- As the lowest class there is room for, so that no token lies where it cannot be used.
          -- Never more than a fair part of what is left, but always what one waiting publish needs.
          local most = math.max(math.floor((lim[c] - T) / (2 * n)), need, 1)
          if want > most then want = most end
          if need > 0 then met = true end
          for k = 1, c do
            local x = math.min(want, lim[k] - T)
            if x > 0 then
              e.g[k], T, want = e.g[k] + x, T + x, want - x
              e.idle = e.idle + x
            end
          end
        end
      end
    end
    -- One lacks tokens for all: whoever says so next would take its place, and of two that hold what the other needs
    -- neither would ever hand it back.
    local over = hat < now - 1000 or hat > now + 3000 -- the latter was told by a clock that went wrong
    if unmet and (not hid or hid == '' or hid == id or over) then
      hat, hid = now, id
      call('HSET', D, 'hat', str(now), 'hid', id)
    elseif hid == id and (met or over) then
      hat, hid = 0, ''
      call('HSET', D, 'hat', '0', 'hid', '')
    end
  end
  if hat > 0 and hid ~= id and hat > now - 5000 and hat < now + 3000 then hungry = '1' end

  if mode == 'bury' and not mine then
    T, S = T - taken(e), S - e.spent
  elseif (mode == 'leave' or mode == 'bury') and not late then
    rt, rs, hc = rt + taken(e), rs + taken(e), hc + taken(e)
    S = S - e.spent + taken(e)
    e.cg, turned = cg, true
    call('HSET', G, id, packEntry(e))
    call('HDEL', R, id)
  elseif not late or not isLive[p] then
    call('HSET', R, id, packEntry(e))
  end
  local wasteNow = str(waste)
  if wasteNow ~= (d[11] or '0') then call('HSET', D, 'waste', wasteNow) end
  local rtNow, rsNow, tNow, hcNow = str(rt), str(rs), str(T), str(hc)
  local cv = d[9] or '1'
  local from = d[10]
  if turned then
    cv = str(num(cv) + 1)
    if call('HLEN', G) > 2048 then
      from = str(math.max(num(from), forgetOldest(G)))
      call('HSET', D, 'from', from)
    end
  end
  if rtNow ~= d[1] or rsNow ~= d[2] or tNow ~= d[8] or hcNow ~= d[7] or cv ~= d[9] then
    call('HSET', D, 'rt', rtNow, 'rs', rsNow, 't', tNow, 'hc', hcNow, 'cv', cv)
  end
  -- A release before this one changes rt and rs, and not cv.
  closed[p] = (rtNow ~= ARGV[o + 13] or rsNow ~= ARGV[o + 14] or cv ~= ARGV[o + 15]) and closedLately(G, cv, from) or false
  if p > 1 then
    idleSum, borrowedSum = idleSum - idleOf[p], borrowedSum - borrowed[p]
    idleOf[p], borrowed[p] = math.max(0, math.floor(shareOf[p] * num(ARGV[14]) / 1e6) - T), math.max(0, T - shareOf[p])
    idleSum, borrowedSum = idleSum + idleOf[p], borrowedSum + borrowed[p]
  end
  if fresh then call('HSET', D, 'loss', epoch) end
  if not mine then
    call('EXPIRE', D, ARGV[13])
    call('EXPIRE', R, ARGV[13])
    call('EXPIRE', G, ARGV[13])
  end

  local x = #out
  out[x + 1], out[x + 2], out[x + 3], out[x + 4], out[x + 5] = str(e.g[1]), str(e.g[2]), str(e.g[3]), tNow, str(S)
  out[x + 6], out[x + 7], out[x + 8] = str(others), hungry, str(L)
  out[x + 9], out[x + 10], out[x + 11] = wasteNow, rtNow, rsNow
  out[x + 12], out[x + 13], out[x + 14] = d[3] or '0', d[4] or '0', str(#vector / 2)
  for i = 1, #vector do out[x + 14 + i] = vector[i] end
end
out[4], out[5] = withheld and '1' or '0', str(replicas)
local x = #out
out[x + 1], out[x + 2], out[x + 3], out[x + 4] = str(sv), str(plan), planname, cfg or ''
out[x + 5], out[x + 6], out[x + 7], out[x + 8], out[x + 9] = a[10] or '', a[11] or '', a[12] or '', a[13] or '', a[14] or ''
for p = 1, pots do
  out[#out + 1] = closed[p] and str(#closed[p] / 2 - 1) or '-1' -- as it was heard
  for _, x in ipairs(closed[p] or {}) do out[#out + 1] = x end
end
return out
