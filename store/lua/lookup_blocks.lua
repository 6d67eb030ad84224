-- Looks blocks up. model: whose blocks they are. blocks: 8 bytes each. registry: whose bits are asked
-- for.
-- Returns the bits of each block, the record of every worker at home here by its name, the stamp of
-- every worker that was applied here, and (at shard 0) the bits that are allocated and the registry.
local model, blocks, registry = unpack(ARGV, 2)
local bits, keys, bytes = {}, {}, 0
-- A key of another type looks like a missing one. It has lost bits, so that no answer is right.
local function fetch()
  local values, missing = redis.call('MGET', unpack(keys)), {}
  for index = 1, #values do
    local value = values[index] or ''
    if value == '' then missing[#missing + 1] = keys[index] end
    if #value > 131072 then malformed('bits') end
    bytes = bytes + #value
    bits[#bits + 1] = value
  end
  if #missing > 0 and redis.call('EXISTS', unpack(missing)) > 0 then malformed('bits') end
  if bytes > 536870912 then malformed('bits') end
  keys = {}
end
for index = 1, #blocks, 8 do
  keys[#keys + 1] = prefix .. 'b' .. registry .. string.sub(blocks, index, index + 7)
  if #keys == 4000 then fetch() end  -- Lua's stack bounds what `unpack` returns
end
if #keys > 0 then fetch() end
local taken = redis.pcall('GET', prefix .. 'taken_bits:' .. model) or ''
if type(taken) == 'table' or #taken > 131072 then malformed('bits') end
return {bits, read_hash('workers', 262144), read_hash('applied', 64), taken, read_registry()}
