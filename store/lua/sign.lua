-- ARGV: prefix, then worker, epoch and report of each. Returns the wishes there are for them.
local wished = {}
for at = 2, #ARGV, 3 do
  if redis.call('HGET', prefix .. 'w:' .. ARGV[at], 'epoch') == ARGV[at + 1] then
    redis.call('HSET', prefix .. 'reports', ARGV[at], ARGV[at + 2])
    local wish = redis.call('HGET', prefix .. 'wishes', ARGV[at])
    if wish then
      wished[#wished + 1] = ARGV[at]
      wished[#wished + 1] = wish
      redis.call('HDEL', prefix .. 'wishes', ARGV[at])
    end
  end
end
return wished
