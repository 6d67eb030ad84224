-- What the scripts share. ARGV[1] is the prefix of a shard; a script's own arguments begin at ARGV[2],
-- and `store/scripts.py` names them in the same order. A script touches only keys named
-- `prefix .. something`: the prefix carries the shard's hash tag, so that all of them lie in one slot
-- of a cluster.
local prefix = ARGV[1]
-- While the shard's slot moves between servers of a cluster, some of its keys are here and some are
-- there. The server refuses a command that names two keys neither of which is here: nothing is read
-- or written by halves.
redis.call('EXISTS', prefix .. 'w', prefix .. 'x')

-- Fails the script because of what the store holds. What the script has done until then stays done.
local function malformed(what) error('MALFORMED ' .. what) end

-- Runs a command on a key that is written again once it is found missing: one of another type is
-- deleted, and the script fails. Other keys are left as they are until their owners have moved on.
local function call(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) == 'table' and answer.err then
    if not string.find(answer.err, 'WRONGTYPE', 1, true) then error(answer.err) end
    redis.call('UNLINK', key)
    malformed('key of another type')
  end
  return answer
end

-- Returns the fields and values of a hash of this shard. Names and values that are longer than any
-- that a replica writes are deleted, and the script fails.
local function read_hash(name, longest)
  local key = prefix .. name
  if call('HLEN', key) > 65536 then malformed(name .. ': too many fields') end
  local fields, any_deleted = redis.call('HGETALL', key), false
  for index = 1, #fields, 2 do
    if #fields[index] > 4096 or #fields[index + 1] > longest then
      redis.call('HDEL', key, fields[index])
      any_deleted = true
    end
  end
  if any_deleted then malformed(name) end
  return fields
end

-- Returns the registry's name, '' if there is none. A name that no replica gives is deleted.
local function read_registry()
  local registry = call('GET', prefix .. 'registry') or ''
  if registry ~= '' and (#registry > 16 or not string.match(registry, '^%x+$')) then
    redis.call('DEL', prefix .. 'registry')
    malformed('registry')
  end
  return registry
end

-- Returns the milliseconds since 1970, by this server's clock.
local function clock_ms()
  local clock = redis.call('TIME')
  return clock[1] * 1000 + math.floor(clock[2] / 1000)
end

-- Returns an epoch as a number. It follows the clock: nil for anything else, and for one of tomorrow.
local function epoch_of(text)
  if not text or #text > 15 or not string.match(text, '^%d+$') then return nil end
  local epoch = tonumber(text)
  if epoch <= clock_ms() + 86400000 then return epoch end
end

-- Returns the id of the newest journal entry, '0-0' if there is none.
-- Ids follow the clock. After one of tomorrow no entry could be told from those before it: such a
-- journal is deleted, and the script fails.
local function newest_entry()
  local last = call('XREVRANGE', prefix .. 'journal', '+', '-', 'COUNT', 1)
  local id = last[1] and last[1][1] or '0-0'
  if tonumber(string.match(id, '^%d+')) > clock_ms() + 86400000 then
    redis.call('UNLINK', prefix .. 'journal')
    malformed('journal')
  end
  return id
end

local function add_entry(entry, entries_kept)
  call('XADD', prefix .. 'journal', 'MAXLEN', '~', entries_kept, '*', 'e', entry)
end

local function is_generation(name)
  return name and #name <= 64 and string.match(name, '^[%w_-]+$') ~= nil
end

-- Whether the j-th of a worker's bits is set in the mask that begins at `index`.
local function is_set(masks, index, j)
  local byte = string.byte(masks, index + math.floor((j - 1) / 8))
  return bit.band(byte, bit.lshift(1, (j - 1) % 8)) ~= 0
end

local function set_bit(key, position, value)
  local answer = redis.pcall('SETBIT', key, position, value)
  if type(answer) == 'table' and answer.err then
    if string.find(answer.err, 'WRONGTYPE', 1, true) then malformed('bits') end
    error(answer.err)
  end
end

-- Sets the worker's bits in the bitmap of each block.
-- blocks: 8 bytes each. bits: positions, 4 bytes each. masks: 8 bytes a block; bit j says whether
-- the block has the j-th of `bits`. retired_bits: positions, 4 bytes each, cleared in every block,
-- and in `stale_blocks`, 8 bytes each, which are otherwise left as they are.
-- A block without any bit has no key. A position means something within its registry only: the
-- registry is part of the key, so that bits of different registries never mix.
-- A key that is no bitmap has lost the bits of all workers, and stays for lookups to find: the script
-- fails if it is to set a bit there.
local function set_bits(registry, blocks, masks, bits, stale_blocks, retired_bits)
  local active, retired = {}, {}
  for index = 1, #bits, 4 do active[#active + 1] = struct.unpack('<I4', bits, index) end
  for index = 1, #retired_bits, 4 do
    retired[#retired + 1] = struct.unpack('<I4', retired_bits, index)
  end
  local function clear_retired(key, is_used)
    for j = 1, #retired do redis.call('SETBIT', key, retired[j], 0) end
    if not is_used and redis.call('BITCOUNT', key) == 0 then redis.call('DEL', key) end
  end
  for index = 1, #blocks, 8 do
    local key = prefix .. 'b' .. registry .. string.sub(blocks, index, index + 7)
    local any_set, any_cleared = false, #retired > 0
    for j = 1, #active do
      if is_set(masks, index, j) then
        set_bit(key, active[j], 1)
        any_set = true
      else
        any_cleared = true
      end
    end
    if any_cleared and redis.call('TYPE', key).ok == 'string' then
      for j = 1, #active do
        if not is_set(masks, index, j) then redis.call('SETBIT', key, active[j], 0) end
      end
      clear_retired(key, any_set)
    end
  end
  for index = 1, #stale_blocks, 8 do
    local key = prefix .. 'b' .. registry .. string.sub(stale_blocks, index, index + 7)
    if redis.call('TYPE', key).ok == 'string' then clear_retired(key) end
  end
end
