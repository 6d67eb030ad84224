-- Renews the lease of a replica, and forgets those that have run out.
-- replica: "" only asks. lease: milliseconds. replaced_prefix: leases of other replicas that begin
-- with it end at once; "" for none.
-- A replica whose lease cannot be read gets one that begins now: it renews it within it, or is gone.
-- Its workers would otherwise change hands because of one damaged value.
-- Returns {1 if the replica had a lease before, else 0, live replicas}.
local replica, lease, replaced_prefix = unpack(ARGV, 2)
local now, replicas = clock_ms(), prefix .. 'replicas'
local had_lease = call('HEXISTS', replicas, replica)
if replica ~= '' then redis.call('HSET', replicas, replica, now) end
local live, heartbeats, any_malformed = {}, read_hash('replicas', math.huge), false
for index = 1, #heartbeats, 2 do
  local other, renewed = heartbeats[index], epoch_of(heartbeats[index + 1])
  if not renewed then
    any_malformed = true
    if string.match(other, '#%x+$') then
      redis.call('HSET', replicas, other, now)
      renewed = now
    end
  end
  local replaced = replaced_prefix ~= '' and other ~= replica
    and string.sub(other, 1, #replaced_prefix) == replaced_prefix
  -- The clock of a server that takes over may be behind, but not by more than a lease for long.
  if renewed and math.abs(now - renewed) <= tonumber(lease) and not replaced then
    live[#live + 1] = other
  else
    redis.call('HDEL', replicas, other)
  end
end
if any_malformed then malformed('replicas') end
return {had_lease, live}
