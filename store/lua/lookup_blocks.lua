-- Looks blocks up. blocks: 8 bytes each. registry: whose bits are asked for.
-- Returns the bits of each block, the record of every worker at home here, the stamp of every worker
-- that was applied here, and (at shard 0) the registry.
local blocks, registry = unpack(ARGV, 2)
local bits, keys = {}, {}
local function fetch()
  local values = redis.call('MGET', unpack(keys))
  for index = 1, #values do bits[#bits + 1] = values[index] or '' end
  keys = {}
end
for index = 1, #blocks, 8 do
  keys[#keys + 1] = prefix .. 'b' .. registry .. string.sub(blocks, index, index + 7)
  if #keys == 4000 then fetch() end  -- Lua's stack bounds what `unpack` returns
end
if #keys > 0 then fetch() end
return {bits, redis.call('HVALS', prefix .. 'workers'),
  redis.call('HGETALL', prefix .. 'applied'), redis.call('GET', prefix .. 'registry') or ''}
