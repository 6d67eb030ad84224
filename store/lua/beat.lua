-- ARGV: prefix, replica ("": only ask), milliseconds a beat is good for. Returns who is live.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local all = prefix .. 'replicas'
if ARGV[2] ~= '' then redis.call('HSET', all, ARGV[2], now) end
local live, beats = {}, redis.call('HGETALL', all)
for at = 1, #beats, 2 do
  if now - beats[at + 1] <= tonumber(ARGV[3]) then
    live[#live + 1] = beats[at]
  else
    redis.call('HDEL', all, beats[at])
  end
end
return live
