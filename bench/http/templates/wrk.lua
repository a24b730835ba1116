-- Sends the requests of the pool in turn, and prints one line that the harness reads.
local requests, n = {}, 0
function init(args)
  local f = assert(io.open(args[1], "rb"))
  for r in f:read("*a"):gmatch("[^%z]+") do requests[#requests + 1] = r end
  f:close()
end
function request()
  n = n % #requests + 1
  return requests[n]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %.1f %.1f\n", summary.requests, summary.duration, e.status,
    e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99)))
end
