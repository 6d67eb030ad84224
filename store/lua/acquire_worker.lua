-- Makes a replica the owner of a worker, unless a live replica owns it, or is about to.
-- unused_generation: the name of the new generation, should one be begun. begin_generation: "always";
-- "unreleased", if the last owner did not release the worker; "needed", if there is none to continue.
-- live_replicas: msgpack array. shards: of the store; on a single one, no write of a former owner is
-- in flight elsewhere, and the epoch fences those that arrive here.
-- Returns {"HELD", owner} or {"ACQUIRED", epoch, generation, revision, state, former generation}.
local worker, model, replica, unused_generation, begin_generation, live_replicas, shards =
  unpack(ARGV, 2)
local record = prefix .. 'w:' .. worker
local last_epoch, owner, last_model, generation, revision, state, bits =
  unpack(call('HMGET', record, 'epoch', 'owner', 'model', 'generation', 'revision', 'state', 'bits'))
owner, state = owner or '', state or ''
-- What no replica writes is as good as lost: nothing there can be gone on with.
if not is_generation(generation) then generation, state = nil, '' end
if #(revision or '') > 15 or not string.match(revision or '', '^%d+$') then
  state, begin_generation = '', 'always'
end
if #state > 1048576 then state = '' end
if owner ~= '' and owner ~= replica then
  for _, live in ipairs(cmsgpack.unpack(live_replicas)) do
    if live == owner then return {'HELD', owner} end
  end
end
local successor, reserved_until = unpack(call('HMGET', record, 'successor', 'reserved_until'))
if owner == '' and successor and successor ~= replica
    and clock_ms() < (epoch_of(reserved_until) or 0) then
  for _, live in ipairs(cmsgpack.unpack(live_replicas)) do
    if live == successor then return {'HELD', successor} end
  end
end
redis.call('HDEL', record, 'successor', 'reserved_until')
-- The epoch follows the clock, so that it grows even where the store has lost the former one.
local now = clock_ms()
local epoch = string.format('%.0f', math.max((epoch_of(last_epoch) or 0) + 1, now))
local former, kept_state, other_model = '', state, last_model ~= model
if not generation or other_model or begin_generation == 'always'
    or (begin_generation == 'unreleased' and owner ~= '') then
  if generation then
    -- The former owner may still have bits in flight to another shard. Its bits are cleared, but
    -- they are allocated again only if nothing can be in flight.
    local reusable = shards == '1' or begin_generation == 'needed' or owner == ''
    call('HSET', prefix .. 'garbage', generation, cmsgpack.pack(
      {worker, last_model or '', bits or '', reusable, math.floor(now / 1000)}))
    former = other_model and '' or generation
    call('HDEL', prefix .. 'workers', worker)
  end
  generation, revision = unused_generation, '0'
  kept_state = ''  -- until the owner has written everything, no other replica can resume it
  if other_model then state = '' end
end
redis.call('HSET', record, 'epoch', epoch, 'owner', replica, 'model', model,
  'generation', generation, 'revision', revision, 'state', kept_state)
redis.call('PERSIST', record)
return {'ACQUIRED', epoch, generation, revision, state, former}
