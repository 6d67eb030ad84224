-- Allocates a bit to each label that has none: the lowest free one.
-- unused_registry: the registry's name, should there be none. labels: msgpack array.
-- Returns the registry, and the bit of each label.
local model, unused_registry, labels = unpack(ARGV, 2)
local bit_of, taken = prefix .. 'bits:' .. model, prefix .. 'taken_bits:' .. model
redis.call('SET', prefix .. 'registry', unused_registry, 'NX')
local bits = {}
for index, label in ipairs(cmsgpack.unpack(labels)) do
  local position = redis.call('HGET', bit_of, label)
  if not position then
    position = redis.call('BITPOS', taken, 0)
    if position < 0 then position = redis.call('STRLEN', taken) * 8 end
    redis.call('SETBIT', taken, position, 1)
    redis.call('HSET', bit_of, label, position)
  end
  bits[index] = tonumber(position)
end
return {redis.call('GET', prefix .. 'registry'), bits}
