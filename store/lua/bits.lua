-- ARGV: 1 prefix, 2 worker, 3 epoch, 4 revision, 5 what may have been applied here last, each an
-- "epoch:revision" and separated by commas ("": anything), 6 blocks, 7 masks, 8 slots, 9 retired slots, 10 registry. Returns {"OK"}, {"FENCED"} or {"BEHIND"}.
local applied = redis.call('HGET', prefix .. 'applied', ARGV[2]) or ''
local epoch = tonumber(string.match(applied, '^(%d+):')) or 0
if epoch > tonumber(ARGV[3]) then return {'FENCED'} end
local now = ARGV[3] .. ':' .. ARGV[4]
if ARGV[5] ~= '' and not string.find(',' .. ARGV[5] .. ',', ',' .. applied .. ',', 1, true) then
  return {'BEHIND'}
end
write_bits(ARGV[10], ARGV[6], ARGV[7], ARGV[8], ARGV[9])
redis.call('HSET', prefix .. 'applied', ARGV[2], now)
return {'OK'}
