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
local function num(x) return tonumber(x) or 0 end
local function str(x) return string.format('%.0f', x) end
local function unpackEntry(s)
  local t = {}
  for w in string.gmatch(s, '%S+') do t[#t + 1] = tonumber(w) end
  return {seq = t[1], cg = t[2], beat = t[3], g = {t[4], t[5], t[6]}, ret = t[7], spent = t[8], over = t[9], idle = t[10]}
end
local function packEntry(e)
  return table.concat({str(e.seq), str(e.cg), str(e.beat), str(e.g[1]), str(e.g[2]), str(e.g[3]),
    str(e.ret), str(e.spent), str(e.over), str(e.idle)}, ' ')
end
local function taken(e) return e.g[1] + e.g[2] + e.g[3] + e.over - e.ret end
-- The server's run id tells a restart or a failover, after which the newest writes may be missing.
-- Not every server or user may ask; then epochs and sequence numbers still find the loss, a heartbeat later.
local function runID()
  local info = redis.pcall('INFO', 'server')
  if type(info) ~= 'string' then return '' end
  return string.match(info, 'run_id:(%w+)') or ''
end
