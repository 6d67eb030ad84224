-- Ends the ownership of a worker, if `replica` owns it.
-- successor: only this replica may acquire it during the next `reserved` milliseconds, as it goes on
-- without a gap; "" for anybody.
local worker, replica, successor, reserved = unpack(ARGV, 2)
local record = prefix .. 'w:' .. worker
if call('HGET', record, 'owner') == replica then
  redis.call('HSET', record, 'owner', '')
  if successor ~= '' then
    local until_ms = string.format('%.0f', clock_ms() + tonumber(reserved))
    redis.call('HSET', record, 'successor', successor, 'reserved_until', until_ms)
  end
end
return 1
