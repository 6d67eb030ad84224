-- ARGV: prefix, model, then labels. Their slots may be allotted again.
local labels, taken = prefix .. 'slots:' .. ARGV[2], prefix .. 'taken:' .. ARGV[2]
for at = 3, #ARGV do
  local slot = redis.call('HGET', labels, ARGV[at])
  if slot then
    redis.call('HDEL', labels, ARGV[at])
    redis.call('SETBIT', taken, slot, 0)
  end
end
return 1
