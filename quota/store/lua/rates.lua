-- One exchange of rate shares: a replica reports the buckets that it used, and hears its shares of them.
--
-- A bucket of rate R and burst B is whole: what the pool holds, what each replica holds, and what replicas that never
-- spoke of it still have (their part of N, "implicit") add up to it. Only this script moves tokens from one to another,
-- and a replica gives before others are given.
--
-- KEYS: 1 records (hash id → record), 2 due (zset id → when it is full again, ms), 3 live (hash replica → line),
--   4 meta (hash jn, ver, news, last, forgotten, lost: when it was found to have lost its data), 5 news (list).
-- ARGV: 1 now ms ('': the server's clock), 2 replica, 3 seq, 4 version of the membership that the replica obeys,
--   5 number of news read, 6 ttl ms (negative: nobody else can be alive), 7 most records, 8 mode (''|leave), 9 keep s,
--   10 the replica's name, then 15 for each report:
--   id, rate id and name, R, B, ms to fill, flags (m managed, l after a loss, c claim), held before, held now, spent in all,
--   rate now, demand a second, refused (0|1), most tokens held now, tokens a second that it could use now, 0.
-- A record: '1 R B P t n0 born m exp news|rateid name' with entries of nine numbers before the bar:
--   replica number, rate, tokens held, cap, heard at, spent in all, demand, refused, tokens a second that it could use.
--   P  tokens of the pool at time t. n0 replicas when it was made, born the newest of them, m those that still have
--   their part unsaid.
local K, due, liveKey, meta, newsKey = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local now
if ARGV[1] == '' then
  local t = call('TIME')
  now = num(t[1]) * 1000 + floor(num(t[2]) / 1000)
else
  now = num(ARGV[1])
end
local inc, seq, ver, ttl = ARGV[2], num(ARGV[3]), num(ARGV[4]), num(ARGV[6])
local dead = max(ttl, 0)

local function numbers(s)
  local t, n, at = {}, 1, 1
  local blank = find(s, ' ', 1, true)
  while blank do
    t[n], n, at = sub(s, at, blank - 1) + 0, n + 1, blank + 1
    blank = find(s, ' ', at, true)
  end
  t[n] = sub(s, at) + 0
  return t
end
-- fine keeps a number short: a millionth of a token is enough.
local function fine(x) return str(floor(x * 1e6 + 0.5) / 1e6) end

-- Who is alive.
local m = call('HMGET', meta, 'jn', 'ver', 'news', 'last', 'forgotten', 'lost')
local jn, version, newsCount, last, forgotten = num(m[1]), num(m[2]), num(m[3]), num(m[4]), num(m[5])
if last > now + 5000 then last = now end -- a clock that went wrong
if now < last then now = last end
-- Where nobody was heard for long, the store was away and not the others.
local gap = last > 0 and now - last > 2000 and now - last or 0
local members, me, changed = {}, nil, false
local all = call('HGETALL', liveKey)
for i = 1, #all, 2 do
  local bar = find(all[i + 1], '|', 1, true)
  local t = numbers(sub(all[i + 1], 1, bar - 1))
  local one = {inc = all[i], jn = t[1], at = t[2] + gap, ver = t[3], seq = t[4], joined = t[5], name = sub(all[i + 1], bar + 1)}
  if one.inc == inc then
    me = one
  elseif ttl < 0 or one.at + ttl < now then
    call('HDEL', liveKey, one.inc)
    changed = true
  else
    members[#members + 1] = one
  end
end
local state = 'known'
if me and seq <= me.seq then return {'OK', 'stale'} end
if not me and ARGV[8] ~= 'leave' then
  state = 'joined'
  if seq > 1 and last == 0 then call('HSET', meta, 'lost', str(now)) m[6] = str(now) end
  if seq > 1 and now - num(m[6]) < 10000 then state = 'fresh' end
  jn = jn + 1
  changed = true
  me = {inc = inc, jn = jn, joined = version + 1}
end
if ARGV[8] == 'leave' and me then changed = true end
if changed then version = version + 1 end
if not me then return {'OK', 'gone'} end
me.at, me.seq, me.name = now, seq, ARGV[10]
if state == 'known' then me.ver = ver else me.ver = version end
members[#members + 1] = me
table.sort(members, function(a, b) return a.jn < b.jn end)
local alive, rank, acked, n = {}, 0, 1, #members
for i, one in ipairs(members) do
  alive[one.jn] = true
  if one.jn == me.jn then rank = i - 1 elseif one.ver < me.joined then acked = 0 end
  if gap > 0 or one.jn == me.jn then
    call('HSET', liveKey, one.inc, str(one.jn) .. ' ' .. str(one.at) .. ' ' .. str(one.ver) .. ' ' .. str(one.seq) .. ' ' ..
      str(one.joined) .. '|' .. one.name)
  end
end
local mine = me.jn

-- What others said since.
local told = {}
local read = num(ARGV[5])
local missed = 0
if state ~= 'known' then read = newsCount end
if newsCount > read then
  local want = newsCount - read
  if want > 1000 then missed, want = 1, 1000 end
  told = call('LRANGE', newsKey, -want, -1)
elseif newsCount < read then
  missed = 1
end
local readTo, fresh = newsCount, {}
local function say(what)
  fresh[#fresh + 1] = what
  newsCount = newsCount + 1
end

-- The reports.
local F, width = 11, 15
local count = floor((#ARGV - F + 1) / width)
local have = {}
for from = 1, count, 500 do
  local ids = {}
  for i = from, min(from + 499, count) do ids[#ids + 1] = ARGV[F + (i - 1) * width] end
  for i, v in ipairs(call('HMGET', K, unpack(ids))) do have[from + i - 1] = v end
end
local answers, sets, adds = {}, {}, {}
for i = 1, count do
  local o = F + (i - 1) * width
  local id, tail, R, B, fill, flags = ARGV[o], ARGV[o + 1], num(ARGV[o + 2]), num(ARGV[o + 3]), num(ARGV[o + 4]), ARGV[o + 5]
  local before, held, S, cur, d, refused = num(ARGV[o + 6]), num(ARGV[o + 7]), num(ARGV[o + 8]), num(ARGV[o + 9]), num(ARGV[o + 10]), num(ARGV[o + 11])
  local managed, lost, claim = find(flags, 'm', 1, true), find(flags, 'l', 1, true), find(flags, 'c', 1, true)
  local r
  if have[i] then
    local bar = find(have[i], '|', 1, true)
    local t = numbers(sub(have[i], 1, bar - 1))
    r = {R = t[2], B = t[3], P = t[4], t = t[5], n0 = t[6], born = t[7], m = t[8], fill = t[9], news = t[10], e = {}}
    for x = 11, #t, 9 do
      r.e[#r.e + 1] = {id = t[x], rate = t[x + 1], h = t[x + 2], cap = t[x + 3], at = t[x + 4], S = t[x + 5], d = t[x + 6], rf = t[x + 7], need = t[x + 8]}
    end
    tail = sub(have[i], bar + 1)
    R, B, fill = r.R, r.B, claim and r.fill or fill
  elseif not claim then
    r = {R = R, B = B, P = 0, t = now, n0 = n, born = jn, m = lost and 0 or n, news = 0, e = {}}
  end
  local skip = not r
  if claim and r then
    -- A claim is for who has no part yet.
    skip = r.m > 0 and mine <= r.born
    for _, e in ipairs(r.e) do skip = skip or e.id == mine end
  end
  if skip then
    answers[i] = '-'
  else
    local impB, impR = max(1, floor(B / r.n0)), R / r.n0
    -- Time passes: what is nobody's goes to the pool. A dead replica's rate is its own until it was taken for dead.
    local dt = max(0, now - r.t)
    local grown, kept, entry, unsaid = R * dt, {}, nil, 0
    local said = {}
    for _, e in ipairs(r.e) do
      if alive[e.id] then
        grown = grown - e.rate * dt
        said[e.id] = true
        if e.id == mine then entry = e else kept[#kept + 1] = e end
      else
        grown = grown - e.rate * min(dt, max(0, e.at + dead - r.t))
        -- What it may have spent since it was last heard counts as spent.
        r.P = r.P + max(0, e.h - ceil(e.need * 0.6))
      end
    end
    for _, one in ipairs(members) do
      if one.jn <= r.born and not said[one.jn] then unsaid = unsaid + 1 end
    end
    unsaid = min(unsaid, r.m)
    if unsaid < r.m then
      grown = grown - (r.m - unsaid) * impR * min(dt, dead)
      r.P = r.P + (r.m - unsaid) * impB
      r.m = unsaid
    end
    r.P = r.P + (grown - unsaid * impR * dt) / 1000
    -- What this replica says.
    if entry then
      local dS = S - entry.S
      if dS < 0 then dS = S end
      r.P = r.P + entry.h + entry.rate * (now - entry.at) / 1000 - dS - held
    elseif mine <= r.born and r.m > 0 then
      r.m = r.m - 1
      r.P = r.P + (managed and impB - held or before - held)
    elseif not lost then
      r.P = r.P - held - (managed and 0 or S) -- it was not entitled to what it took: a debt
    end
    -- Who wants how much.
    local need = num(ARGV[o + 13])
    local W, sumR, sumC, sumT, fast, starving, idle = d, r.m * impR, r.m * impB, r.m * impB, r.m > 0, false, r.m > 0
    local whole = 0
    for _, e in ipairs(kept) do
      local recent = now - e.at < 2000
      if recent then W = W + e.d end
      sumR = sumR + e.rate
      sumC = sumC + (e.rate > 0 and e.cap or e.h)
      sumT = sumT + (e.rate > 0 and min(max(e.cap, e.h), e.h + e.rate * (now - e.at) / 1000) or e.h)
      fast = fast or e.rate > 0
      if e.rf > 0 and now - e.at < 1500 then starving = true end
      if not recent and (e.h >= 1 or e.rate > 0) or now - e.at > 900 and e.h >= 1 then idle = true end
      whole = whole + e.h
    end
    local target, rate, cap, give
    if lost then
      -- Nobody knows what the others hold: nothing is added until all have said so.
      rate, cap, give, r.P = cur, max(1, num(ARGV[o + 12])), 0, 0
    elseif n == 1 then
      target, rate, cap = R, R, B
      r.P = min(r.P, max(0, B - held))
      give = floor(max(0, r.P) + 1e-5)
    else
      target = W > 0 and R * d / W or 0
      if target < 1 then target = 0 end
      if cur > target then rate = target else rate = max(cur, min(target, max(0, R - sumR))) end
      local eff = max(cur, rate)
      fast = fast or eff > 0
      local btot = B + n
      local room = max(0, btot - sumC)
      if eff > 0 then
        cap = max(1, min(floor(B * (W > 0 and d / W or 0)) + 1, floor(room)), ceil(held))
        r.P = min(r.P, max(0, btot - sumT - held))
        give = floor(max(0, min(r.P, cap - held) + 1e-5))
      else
        cap = B
        r.P = min(r.P, max(0, btot - sumT - held))
        need = max(need, d / 2)
        local want = ceil(need) + 1 - held
        if claim then
          give = floor(r.P / n)
        elseif need <= 0 then
          give = 0
        else
          want = max(want, floor(r.P / (2 * n)))
          if starving and W > 0 then want = min(want, max(1, ceil(r.P * d / W))) end
          give = floor(max(0, min(r.P + 1e-5, want + 1e-5)))
        end
      end
    end
    give = max(give, 0)
    r.P = r.P - give
    held = held + give
    kept[#kept + 1] = {id = mine, rate = max(cur, rate), h = held, cap = cap, at = now, S = S, d = d, rf = refused, need = num(ARGV[o + 13])}
    whole = whole + held + max(r.P, 0) + r.m * impB
    if refused > 0 and give == 0 and n > 1 and idle and now - r.news > 400 then
      say('h ' .. id .. ' ' .. tail)
      r.news = now
    end
    local wait = 500
    if r.P < 1 then wait = R > 0 and min(ceil((1 - r.P) / R * 1000), 86400000) or 86400000 end
    local busy = (starving or (R > 0 and W >= 0.9 * R) or r.P < 1) and n > 1
    answers[i] = str(give) .. ' ' .. str(rate) .. ' ' .. str(cap) .. ' ' .. (starving and '1' or '0') .. ' ' .. (busy and '1' or '0') .. ' ' ..
      str(wait) .. ' ' .. fine(min(whole, B)) .. ' ' .. fine(W > 0 and d / W or 1 / n)
    local s = {'1 ' .. str(R), str(B), fine(r.P), str(now), str(r.n0), str(r.born), str(r.m), str(fill), str(r.news)}
    for _, e in ipairs(kept) do
      s[#s + 1] = str(e.id) .. ' ' .. str(e.rate) .. ' ' .. fine(e.h) .. ' ' .. str(e.cap) .. ' ' .. str(e.at) .. ' ' .. str(e.S) .. ' ' .. fine(e.d) .. ' ' .. str(e.rf) .. ' ' .. fine(e.need)
    end
    sets[#sets + 1] = id
    sets[#sets + 1] = table.concat(s, ' ') .. '|' .. tail
    adds[#adds + 1] = str(now + fill + 10000)
    adds[#adds + 1] = id
  end
end
for from = 1, #sets, 1000 do call('HSET', K, unpack(sets, from, min(from + 999, #sets))) end
for from = 1, #adds, 1000 do call('ZADD', due, unpack(adds, from, min(from + 999, #adds))) end

-- What is full again is forgotten, and beyond the bound what was least used.
local function forget(ids)
  if #ids == 0 then return end
  if n > 1 then
    for i, v in ipairs(call('HMGET', K, unpack(ids))) do
      if v then say('r ' .. ids[i] .. ' ' .. sub(v, find(v, '|', 1, true) + 1)) end
    end
  end
  call('HDEL', K, unpack(ids))
  call('ZREM', due, unpack(ids))
end
if count > 0 or seq % 8 == 0 then
  forget(call('ZRANGEBYSCORE', due, '-inf', str(now), 'LIMIT', '0', '100'))
  local over = min(num(call('ZCARD', due)) - num(ARGV[7]), 1000)
  if over > 0 then
    forgotten = forgotten + over
    forget(call('ZRANGE', due, 0, over - 1))
  end
end
if #fresh > 0 then
  call('RPUSH', newsKey, unpack(fresh))
  call('LTRIM', newsKey, -1000, -1)
  call('EXPIRE', newsKey, ARGV[9])
end
if ARGV[8] == 'leave' then call('HDEL', liveKey, inc) end
call('HSET', meta, 'jn', str(jn), 'ver', str(version), 'news', str(newsCount), 'last', str(now), 'forgotten', str(forgotten))
for _, k in ipairs({K, due, liveKey, meta}) do call('EXPIRE', k, ARGV[9]) end
local out = {'OK', state, str(now), str(n), str(rank), str(version), str(acked), str(readTo), str(missed), str(forgotten), str(#told)}
for _, x in ipairs(told) do out[#out + 1] = x end
for i = 1, count do out[#out + 1] = answers[i] end
return out
