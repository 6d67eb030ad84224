-- Renews the reports of workers, and takes the requests that were posted to their owner.
-- reports: msgpack array of worker, epoch, report; a report of another epoch is ignored.
-- Returns workers and requests in turn.
local reports = unpack(ARGV, 2)
local requests = {}
for _, renewed in ipairs(cmsgpack.unpack(reports)) do
  local worker, epoch, report = unpack(renewed)
  if redis.call('HGET', prefix .. 'w:' .. worker, 'epoch') == epoch then
    redis.call('HSET', prefix .. 'reports', worker, report)
    local request = redis.call('HGET', prefix .. 'requests', worker)
    if request then
      requests[#requests + 1] = worker
      requests[#requests + 1] = request
      redis.call('HDEL', prefix .. 'requests', worker)
    end
  end
end
return requests
