-- Removes a worker and everything known of it; its generation becomes garbage.
-- epoch: "" for whoever owns it. entry: for the journal. entries_kept: length of the journal.
-- fence_seconds: how long a former owner finds itself fenced. reusable: "1" if nothing of the worker
-- can be in flight to another shard, so that its bits can be allocated again.
-- Returns {"OK"}, {"FENCED"} or {"GONE"}.
local worker, epoch, entry, entries_kept, fence_seconds, reusable = unpack(ARGV, 2)
local record = prefix .. 'w:' .. worker
local known = redis.call('HMGET', record, 'epoch', 'generation', 'model', 'bits')
if not known[2] then return {'GONE'} end
if epoch ~= '' and known[1] ~= epoch then return {'FENCED'} end
redis.call('HSET', prefix .. 'garbage', known[2], cmsgpack.pack(
  {worker, known[3], known[4] or '', reusable == '1', tonumber(redis.call('TIME')[1])}))
redis.call('DEL', record)
redis.call('HSET', record, 'epoch', string.format('%.0f', known[1] + 1))  -- fences the former owner
redis.call('EXPIRE', record, fence_seconds)
redis.call('HDEL', prefix .. 'workers', worker)
redis.call('HDEL', prefix .. 'applied', worker)
redis.call('HDEL', prefix .. 'reports', worker)
redis.call('HDEL', prefix .. 'requests', worker)
redis.call('XADD', prefix .. 'journal', 'MAXLEN', '~', entries_kept, '*', 'e', entry)
return {'OK'}
