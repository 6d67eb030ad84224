-- What the scripts share. ARGV[1] is the prefix of a shard; a script's own arguments begin at ARGV[2],
-- and `store/scripts.py` names them in the same order. A script touches only keys named
-- `prefix .. something`: the prefix carries the shard's hash tag, so that all of them lie in one slot
-- of a cluster.
local prefix = ARGV[1]
-- While the shard's slot moves between servers of a cluster, some of its keys are here and some are
-- there. The server refuses a command that names two keys neither of which is here: nothing is read
-- or written by halves.
redis.call('EXISTS', prefix .. 'w', prefix .. 'x')

-- Whether the j-th of a worker's bits is set in the mask that begins at `index`.
local function is_set(masks, index, j)
  local byte = string.byte(masks, index + math.floor((j - 1) / 8))
  return bit.band(byte, bit.lshift(1, (j - 1) % 8)) ~= 0
end

-- Sets the worker's bits in the bitmap of each block.
-- blocks: 8 bytes each. bits: positions, 4 bytes each. masks: 8 bytes a block; bit j says whether
-- the block has the j-th of `bits`. retired_bits: positions, 4 bytes each, cleared in every block.
-- A block without any bit has no key. A position means something within its registry only: the
-- registry is part of the key, so that bits of different registries never mix.
local function set_bits(registry, blocks, masks, bits, retired_bits)
  local active, retired = {}, {}
  for index = 1, #bits, 4 do active[#active + 1] = struct.unpack('<I4', bits, index) end
  for index = 1, #retired_bits, 4 do
    retired[#retired + 1] = struct.unpack('<I4', retired_bits, index)
  end
  for index = 1, #blocks, 8 do
    local key = prefix .. 'b' .. registry .. string.sub(blocks, index, index + 7)
    local any_set, any_cleared = false, #retired > 0
    for j = 1, #active do
      if is_set(masks, index, j) then
        redis.call('SETBIT', key, active[j], 1)
        any_set = true
      else
        any_cleared = true
      end
    end
    if any_cleared and redis.call('EXISTS', key) == 1 then
      for j = 1, #active do
        if not is_set(masks, index, j) then redis.call('SETBIT', key, active[j], 0) end
      end
      for j = 1, #retired do redis.call('SETBIT', key, retired[j], 0) end
      if not any_set and redis.call('BITCOUNT', key) == 0 then redis.call('DEL', key) end
    end
  end
end
