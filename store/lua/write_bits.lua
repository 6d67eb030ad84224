-- Writes the bits of a worker whose home is another shard.
-- expected_stamps: what may have been applied here last, each "epoch:revision", separated by commas;
-- "" for anything. blocks, masks, bits, stale_blocks, retired_bits, registry: see `set_bits` in the
-- prelude.
-- Returns {"OK"}; {"FENCED"} if a later owner has written here; {"BEHIND"} if this shard has lost
-- what was written last.
local worker, epoch, revision, expected_stamps, blocks, masks, bits, stale_blocks, retired_bits,
  registry = unpack(ARGV, 2)
local applied = call('HGET', prefix .. 'applied', worker) or ''
local applied_epoch = epoch_of(string.match(applied, '^(%d+):%d+$')) or 0
if applied_epoch > tonumber(epoch) then return {'FENCED'} end
if expected_stamps ~= ''
    and not string.find(',' .. expected_stamps .. ',', ',' .. applied .. ',', 1, true) then
  return {'BEHIND'}
end
set_bits(registry, blocks, masks, bits, stale_blocks, retired_bits)
redis.call('HSET', prefix .. 'applied', worker, epoch .. ':' .. revision)
return {'OK'}
