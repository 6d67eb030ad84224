-- ARGV: prefix, worker, epoch ("": whatever it is), journal entry, entries kept, seconds a fence is
-- kept, "1" if nothing of it can be under way to another shard. The worker never was. Returns {"OK"},
-- {"FENCED"} or {"GONE"}.
local record = prefix .. 'w:' .. ARGV[2]
local known = redis.call('HMGET', record, 'epoch', 'generation', 'model', 'slots')
if not known[2] then return {'GONE'} end
if ARGV[3] ~= '' and known[1] ~= ARGV[3] then return {'FENCED'} end
redis.call('HSET', prefix .. 'garbage', known[2],
  cmsgpack.pack({ARGV[2], known[3], known[4] or '', ARGV[7] == '1',
    tonumber(redis.call('TIME')[1])}))
redis.call('DEL', record)
redis.call('HSET', record, 'epoch', string.format('%.0f', known[1] + 1))  -- a former owner finds itself fenced
redis.call('EXPIRE', record, ARGV[6])
redis.call('HDEL', prefix .. 'workers', ARGV[2])
redis.call('HDEL', prefix .. 'applied', ARGV[2])
redis.call('HDEL', prefix .. 'reports', ARGV[2])
redis.call('HDEL', prefix .. 'wishes', ARGV[2])
redis.call('XADD', prefix .. 'journal', 'MAXLEN', '~', ARGV[5], '*', 'e', ARGV[4])
return {'OK'}
