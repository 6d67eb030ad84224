-- Writes what has changed of a worker to its home: rows, bits, record, and a journal entry.
-- generation: the one that the owner writes. revision: the one written last. pages: 2 bytes a name.
-- names: 8 bytes each. counts: rows of each name, 2 bytes. rows: 16 bytes each. blocks, masks, bits,
-- stale_blocks, retired_bits, registry: see `set_bits` in the prelude; blocks of this shard only.
-- state: what the next owner needs. bits_to_clear: all that the generation has. entries_kept: length
-- of the journal.
-- Returns {"OK"}, {"FENCED"}, or {"BEHIND", revision} if another revision than `revision` is here,
-- or another generation.
local worker, epoch, generation, revision, pages, names, counts, rows, blocks, masks, bits,
  stale_blocks, retired_bits, registry, state, bits_to_clear, worker_record, entry, entries_kept = unpack(ARGV, 2)
local record = prefix .. 'w:' .. worker
local current_epoch, current_revision, current_generation =
  unpack(call('HMGET', record, 'epoch', 'revision', 'generation'))
-- An epoch that is none, or below the owner's, is no later owner's: the hash is damaged.
if (epoch_of(current_epoch) or 0) < tonumber(epoch) then return {'BEHIND', '-1'} end
if current_epoch ~= epoch then return {'FENCED'} end
if current_generation ~= generation then return {'BEHIND', '-1'} end
if current_revision ~= revision then return {'BEHIND', current_revision} end
local page_prefix = prefix .. 'p:' .. generation .. ':'
local row = 1
for index = 1, #names / 8 do
  local page = page_prefix .. struct.unpack('<I2', pages, index * 2 - 1)
  local name = string.sub(names, index * 8 - 7, index * 8)
  local count = struct.unpack('<I2', counts, index * 2 - 1)
  if count > 0 then
    redis.call('HSET', page, name, string.sub(rows, row, row + 16 * count - 1))
  else
    redis.call('HDEL', page, name)
  end
  row = row + 16 * count
end
set_bits(registry, blocks, masks, bits, stale_blocks, retired_bits)
local next_revision = string.format('%.0f', revision + 1)
redis.call('HSET', record, 'revision', next_revision, 'state', state, 'bits', bits_to_clear)
call('HSET', prefix .. 'applied', worker, epoch .. ':' .. next_revision)
call('HSET', prefix .. 'workers', worker, worker_record)
add_entry(entry, entries_kept)
return {'OK'}
