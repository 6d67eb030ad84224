-- ARGV: 1 prefix, 2 worker, 3 epoch, 4 revision so far, 5 pages (2 bytes a name), 6 names (8 bytes),
-- 7 counts (2 bytes), 8 rows (16 bytes), 9 blocks of this shard, 10 masks, 11 slots,
-- 12 retired slots, 13 state, 14 slots to be wiped one day, 15 standing, 16 journal entry,
-- 17 entries kept, 18 registry of the slots.
-- Returns {"OK"}, {"FENCED"}, or {"BEHIND", revision} if what is here is not what was written last.
local record = prefix .. 'w:' .. ARGV[2]
local known = redis.call('HMGET', record, 'epoch', 'revision', 'generation')
if not known[1] then return {'BEHIND', '-1'} end
if known[1] ~= ARGV[3] then return {'FENCED'} end
if known[2] ~= ARGV[4] then return {'BEHIND', known[2]} end
local pages = prefix .. 'p:' .. known[3] .. ':'
local row = 1
for at = 1, #ARGV[6] / 8 do
  local page = pages .. struct.unpack('<I2', ARGV[5], at * 2 - 1)
  local name = string.sub(ARGV[6], at * 8 - 7, at * 8)
  local count = struct.unpack('<I2', ARGV[7], at * 2 - 1)
  if count > 0 then
    redis.call('HSET', page, name, string.sub(ARGV[8], row, row + 16 * count - 1))
  else
    redis.call('HDEL', page, name)
  end
  row = row + 16 * count
end
write_bits(ARGV[18], ARGV[9], ARGV[10], ARGV[11], ARGV[12])
local revision = string.format('%.0f', ARGV[4] + 1)
redis.call('HSET', record, 'revision', revision, 'state', ARGV[13],
  'slots', ARGV[14])
redis.call('HSET', prefix .. 'applied', ARGV[2], ARGV[3] .. ':' .. revision)
redis.call('HSET', prefix .. 'workers', ARGV[2], ARGV[15])
redis.call('XADD', prefix .. 'journal', 'MAXLEN', '~', ARGV[17], '*', 'e', ARGV[16])
return {'OK'}
