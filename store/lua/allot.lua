-- ARGV: prefix, model, registry if there is none, then labels. Returns the registry, and the slot of
-- each label, the lowest free ones to new ones.
local labels, taken = prefix .. 'slots:' .. ARGV[2], prefix .. 'taken:' .. ARGV[2]
redis.call('SET', prefix .. 'registry', ARGV[3], 'NX')
local slots = {}
for at = 4, #ARGV do
  local slot = redis.call('HGET', labels, ARGV[at])
  if not slot then
    slot = redis.call('BITPOS', taken, 0)
    if slot < 0 then slot = redis.call('STRLEN', taken) * 8 end
    redis.call('SETBIT', taken, slot, 1)
    redis.call('HSET', labels, ARGV[at], slot)
  end
  slots[#slots + 1] = tonumber(slot)
end
return {redis.call('GET', prefix .. 'registry'), slots}
