-- ARGV: prefix, worker, model, replica, generation if one has to be begun, when to begin one ("always",
-- "unreleased": if the last owner did not let go, "needed"), live replicas.
-- Becomes the worker's owner unless a live replica is.
-- Returns {"HELD", owner} or {"OWNED", epoch, generation, revision, state, former generation}.
local record = prefix .. 'w:' .. ARGV[2]
local known = redis.call('HMGET', record, 'epoch', 'owner', 'model', 'generation', 'revision',
  'state', 'slots')
local owner = known[2] or ''
if owner ~= '' and owner ~= ARGV[4] then
  for at = 7, #ARGV do
    if ARGV[at] == owner then return {'HELD', owner} end
  end
end
-- By the clock, so that it grows even where a former one was lost.
local clock = redis.call('TIME')
local epoch = math.max((tonumber(known[1]) or 0) + 1, clock[1] * 1000 + math.floor(clock[2] / 1000))
epoch = string.format('%.0f', epoch)
local generation, revision, state, former = known[4], known[5], known[6] or '', ''
local kept = state
local other = known[3] ~= ARGV[3]
if not generation or other or ARGV[6] == 'always' or (ARGV[6] == 'unreleased' and owner ~= '') then
  if generation then
    -- Bits may yet be under way to another shard: such slots are wiped, but never allotted again.
    local settled = ARGV[6] == 'needed' or owner == ''
    redis.call('HSET', prefix .. 'garbage', generation, cmsgpack.pack(
      {ARGV[2], known[3], known[7] or '', settled, tonumber(clock[1])}))
    former = other and '' or generation
    redis.call('HDEL', prefix .. 'workers', ARGV[2])
  end
  generation, revision = ARGV[5], '0'
  kept = ''  -- until all is written into the new one, nobody else could go on with it
  if other then state = '' end
end
redis.call('HSET', record, 'epoch', epoch, 'owner', ARGV[4], 'model', ARGV[3],
  'generation', generation, 'revision', revision, 'state', kept)
redis.call('PERSIST', record)
return {'OWNED', epoch, generation, revision, state, former}
