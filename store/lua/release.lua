-- ARGV: prefix, worker, replica. Its owner lets go of it.
local record = prefix .. 'w:' .. ARGV[2]
if redis.call('HGET', record, 'owner') == ARGV[3] then redis.call('HSET', record, 'owner', '') end
return 1
