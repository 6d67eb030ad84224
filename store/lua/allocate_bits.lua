-- Allocates a bit to each label that has none: the lowest free one.
-- unused_registry: the registry's name, should there be none. labels: msgpack array.
-- Two labels must never share a bit: if what is allocated cannot be told any more, a new registry
-- begins, in which no bit is.
-- Returns the registry, and the bit of each label.
local model, unused_registry, labels = unpack(ARGV, 2)
local bit_of, taken = prefix .. 'bits:' .. model, prefix .. 'taken_bits:' .. model

local function is_consistent()
  local bit_of_type, taken_type = redis.call('TYPE', bit_of).ok, redis.call('TYPE', taken).ok
  if bit_of_type ~= 'hash' and bit_of_type ~= 'none' then return false end
  if taken_type ~= 'string' then return taken_type == 'none' and bit_of_type == 'none' end
  local seen, positions = {}, redis.call('HVALS', bit_of)
  for _, position in ipairs(positions) do
    if #position > 7 or not string.match(position, '^%d+$') or seen[position]
        or redis.call('GETBIT', taken, position) == 0 then
      return false
    end
    seen[position] = true
  end
  return redis.call('BITCOUNT', taken) == #positions
end

if not is_consistent() then
  redis.call('UNLINK', bit_of, taken, prefix .. 'registry')
end
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
return {read_registry(), bits}
