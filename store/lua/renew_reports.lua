-- Renews the reports of workers, and takes the requests that were posted to their owner.
-- reports: msgpack array of worker, epoch, report; a report of another epoch is ignored. A worker whose
-- own hash is lost has the request "rewrite".
-- Returns workers and requests in turn.
local reports = unpack(ARGV, 2)
local requests = {}
for _, renewed in ipairs(cmsgpack.unpack(reports)) do
  local worker, epoch, report = unpack(renewed)
  local current_epoch = call('HGET', prefix .. 'w:' .. worker, 'epoch')
  if current_epoch == epoch then
    call('HSET', prefix .. 'reports', worker, report)
    local request = call('HGET', prefix .. 'requests', worker)
    if request then
      requests[#requests + 1] = worker
      requests[#requests + 1] = request
      redis.call('HDEL', prefix .. 'requests', worker)
    end
  elseif not epoch_of(current_epoch) then
    requests[#requests + 1] = worker
    requests[#requests + 1] = 'rewrite'
  end
end
return requests
