-- Removes a worker and everything known of it; its generation becomes garbage.
-- epoch: "" for any. spared: msgpack array of replicas; a worker that one of these owns stays. entry:
-- for the journal. entries_kept: length of the journal. fence_seconds: how long a former owner finds
-- itself fenced. reusable: "1" if nothing of the worker can be in flight to another shard, so that its
-- bits can be allocated again.
-- Returns {"OK"}, {"FENCED"} or {"GONE"}.
local worker, epoch, entry, entries_kept, fence_seconds, reusable, spared = unpack(ARGV, 2)
local record = prefix .. 'w:' .. worker
local current_epoch, current_owner, generation, model, bits =
  unpack(call('HMGET', record, 'epoch', 'owner', 'generation', 'model', 'bits'))
if not generation then return {'GONE'} end
if epoch ~= '' and current_epoch ~= epoch then return {'FENCED'} end
for _, replica in ipairs(cmsgpack.unpack(spared)) do
  if replica == current_owner then return {'FENCED'} end
end
local now = clock_ms()
if is_generation(generation) then
  call('HSET', prefix .. 'garbage', generation, cmsgpack.pack(
    {worker, model or '', bits or '', reusable == '1', math.floor(now / 1000)}))
end
redis.call('DEL', record)
local next_epoch = (epoch_of(current_epoch) or now) + 1  -- fences the former owner
redis.call('HSET', record, 'epoch', string.format('%.0f', next_epoch))
redis.call('EXPIRE', record, fence_seconds)
call('HDEL', prefix .. 'workers', worker)
call('HDEL', prefix .. 'applied', worker)
call('HDEL', prefix .. 'reports', worker)
call('HDEL', prefix .. 'requests', worker)
add_entry(entry, entries_kept)
return {'OK'}
