-- Shared by every script of the ledger; put in front of each.
--
-- A replica's entry in a pot is one string of numbers, in this order:
--   seq   number of the replica's report that this entry reflects
--   cg    confirmation round in which the replica was last heard (see heal.lua)
--   beat  time of that report, ms
--   g1 g2 g3  tokens ever granted to it today, by class bulk, normal, critical
--   ret   tokens it handed back
--   spent messages it reported as sent
--   over  messages it sent beyond its leases (a cost that came out higher, an emergency share)
--   idle  tokens it held unused when it reported
-- What it has taken from the pot is g1+g2+g3+over-ret; it only ever makes that claim of itself,
-- so a store that lost data can be filled again from what replicas know.
--
-- Every script here also runs in the embedded store, whose Lua is an interpreter in Go, several times a second beside
-- the requests. There a pattern is compiled anew at each use and string.format is slow, so both are kept off the paths
-- that each heartbeat takes; and a redis.call is the dearest of all.
local call = redis.call
local tonumber, tostring, find, sub = tonumber, tostring, string.find, string.sub
local function num(x) return tonumber(x) or 0 end
-- tostring of an integer is exact to 14 digits in every Lua.
local function str(x)
  if x < 1e14 and x > -1e14 then return tostring(x) end
  return string.format('%.0f', x)
end
local function unpackEntry(s)
  local t, n, at = {}, 1, 1
  local blank = find(s, ' ', 1, true)
  while blank do
    t[n], n, at = sub(s, at, blank - 1) + 0, n + 1, blank + 1
    blank = find(s, ' ', at, true)
  end
  t[n] = sub(s, at) + 0
  return {seq = t[1], cg = t[2], beat = t[3], g = {t[4], t[5], t[6]}, ret = t[7], spent = t[8], over = t[9], idle = t[10]}
end
local function packEntry(e)
  local g = e.g
  return str(e.seq) .. ' ' .. str(e.cg) .. ' ' .. str(e.beat) .. ' ' .. str(g[1]) .. ' ' .. str(g[2]) .. ' ' .. str(g[3]) .. ' ' ..
    str(e.ret) .. ' ' .. str(e.spent) .. ' ' .. str(e.over) .. ' ' .. str(e.idle)
end
local function taken(e)
  local g = e.g
  return g[1] + g[2] + g[3] + e.over - e.ret
end
-- The server's run id tells a restart or a failover, after which the newest writes may be missing.
-- Not every server or user may ask; then epochs and sequence numbers still find the loss, a heartbeat later.
local function runID()
  local info = redis.pcall('INFO', 'server')
  if type(info) ~= 'string' then return '' end
  local at = find(info, 'run_id:', 1, true)
  return at and string.match(info, '^%w+', at + 7) or ''
end
-- A line of the audit trail. By then the lever has moved: a trail that cannot be written, since something else has its
-- name, is put aside and begun anew, and never makes the answer a failure.
local function audit(key, line, kept)
  local done = redis.pcall('LPUSH', key, line)
  if type(done) == 'table' and done.err and find(done.err, 'WRONGTYPE', 1, true) then
    redis.pcall('RENAME', key, key .. ':broken')
    done = redis.pcall('LPUSH', key, line)
  end
  redis.pcall('LTRIM', key, 0, kept - 1)
  return type(done) == 'table' and done.err or nil
end
