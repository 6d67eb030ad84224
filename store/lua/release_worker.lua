-- Ends the ownership of a worker, if `replica` owns it.
local worker, replica = unpack(ARGV, 2)
local record = prefix .. 'w:' .. worker
if call('HGET', record, 'owner') == replica then redis.call('HSET', record, 'owner', '') end
return 1
