-- ARGV: prefix, blocks (8 bytes each), registry. Returns the bits of each block, the standing of
-- every worker at home here, what of every worker was applied here, and (at shard 0) the registry.
local bits, keys = {}, {}
local function fetch()
  local values = redis.call('MGET', unpack(keys))
  for at = 1, #values do bits[#bits + 1] = values[at] or '' end
  keys = {}
end
for at = 1, #ARGV[2], 8 do
  keys[#keys + 1] = prefix .. 'b' .. ARGV[3] .. string.sub(ARGV[2], at, at + 7)
  if #keys == 4000 then fetch() end
end
if #keys > 0 then fetch() end
return {bits, redis.call('HGETALL', prefix .. 'workers'),
  redis.call('HGETALL', prefix .. 'applied'), redis.call('GET', prefix .. 'registry') or ''}
