-- ARGV: prefix, replica ("": only ask), milliseconds a beat is good for, what those begin with whose
-- place the replica takes ("": nobody's). Returns who is live.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local all = prefix .. 'replicas'
if ARGV[2] ~= '' then redis.call('HSET', all, ARGV[2], now) end
local live, beats = {}, redis.call('HGETALL', all)
for at = 1, #beats, 2 do
  local replaced = ARGV[4] ~= '' and beats[at] ~= ARGV[2] and string.sub(beats[at], 1, #ARGV[4]) == ARGV[4]
  if now - beats[at + 1] <= tonumber(ARGV[3]) and not replaced then
    live[#live + 1] = beats[at]
  else
    redis.call('HDEL', all, beats[at])
  end
end
return live
