-- Removes a worker and everything known of it; its generation becomes garbage.
-- epoch: "" for whoever owns it. entry: for the journal. entries_kept: length of the journal.
-- fence_seconds: how long a former owner finds itself fenced. reusable: "1" if nothing of the worker
-- can be in flight to another shard, so that its bits can be allocated again.
-- Returns {"OK"}, {"FENCED"} or {"GONE"}.
local worker, epoch, entry, entries_kept, fence_seconds, reusable = unpack(ARGV, 2)
local record = prefix .. 'w:' .. worker
local current_epoch, generation, model, bits =
  unpack(redis.call('HMGET', record, 'epoch', 'generation', 'model', 'bits'))
if not generation then return {'GONE'} end
if epoch ~= '' and current_epoch ~= epoch then return {'FENCED'} end
redis.call('HSET', prefix .. 'garbage', generation, cmsgpack.pack(
  {worker, model, bits or '', reusable == '1', tonumber(redis.call('TIME')[1])}))
redis.call('DEL', record)
redis.call('HSET', record, 'epoch', string.format('%.0f', current_epoch + 1))  -- fences the former owner
redis.call('EXPIRE', record, fence_seconds)
redis.call('HDEL', prefix .. 'workers', worker)
redis.call('HDEL', prefix .. 'applied', worker)
redis.call('HDEL', prefix .. 'reports', worker)
redis.call('HDEL', prefix .. 'requests', worker)
redis.call('XADD', prefix .. 'journal', 'MAXLEN', '~', entries_kept, '*', 'e', entry)
return {'OK'}
