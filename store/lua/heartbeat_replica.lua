-- Renews the lease of a replica, and forgets those that have run out.
-- replica: "" only asks. lease: milliseconds. replaced_prefix: leases of other replicas that begin
-- with it end at once; "" for none.
-- Returns {1 if the replica had a lease before, else 0, live replicas}.
local replica, lease, replaced_prefix = unpack(ARGV, 2)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local replicas = prefix .. 'replicas'
local had_lease = redis.call('HEXISTS', replicas, replica)
if replica ~= '' then redis.call('HSET', replicas, replica, now) end
local live, heartbeats = {}, redis.call('HGETALL', replicas)
for index = 1, #heartbeats, 2 do
  local other, renewed = heartbeats[index], heartbeats[index + 1]
  local replaced = replaced_prefix ~= '' and other ~= replica
    and string.sub(other, 1, #replaced_prefix) == replaced_prefix
  if now - renewed <= tonumber(lease) and not replaced then
    live[#live + 1] = other
  else
    redis.call('HDEL', replicas, other)
  end
end
return {had_lease, live}
