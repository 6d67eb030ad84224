-- What the scripts share. Everything a script touches is named `prefix .. something`, and the
-- prefix carries the hash tag of its shard: all of it lies in one slot of a cluster.
local prefix = ARGV[1]
-- While the shard's slot moves between servers of a cluster some keys are here and some are there.
-- Naming two that never are makes the server refuse, before anything is read or written by halves.
redis.call('EXISTS', prefix .. 'w', prefix .. 'x')

-- Sets, for each 8-byte name in `names`, the worker's bits: `slots` as `masks` say (one 8-byte mask
-- a name, bit j for the j-th slot), `retired` to zero. A block that nobody holds has no key. Slots
-- are numbers of one registry only: bits of different ones are told apart by its name.
local function write_bits(registry, names, masks, slots, retired)
  local active, gone = {}, {}
  for at = 1, #slots, 4 do active[#active + 1] = struct.unpack('<I4', slots, at) end
  for at = 1, #retired, 4 do gone[#gone + 1] = struct.unpack('<I4', retired, at) end
  for at = 1, #names, 8 do
    local key = prefix .. 'b' .. registry .. string.sub(names, at, at + 7)
    local held, lost = false, #gone > 0
    for j = 1, #active do
      local byte = string.byte(masks, at + math.floor((j - 1) / 8))
      if bit.band(byte, bit.lshift(1, (j - 1) % 8)) ~= 0 then
        redis.call('SETBIT', key, active[j], 1)
        held = true
      else
        lost = true
      end
    end
    if lost and redis.call('EXISTS', key) == 1 then
      for j = 1, #active do
        local byte = string.byte(masks, at + math.floor((j - 1) / 8))
        if bit.band(byte, bit.lshift(1, (j - 1) % 8)) == 0 then
          redis.call('SETBIT', key, active[j], 0)
        end
      end
      for j = 1, #gone do redis.call('SETBIT', key, gone[j], 0) end
      if not held and redis.call('BITCOUNT', key) == 0 then redis.call('DEL', key) end
    end
  end
end
