-- ARGV: prefix, model, what labels begin with ("": only those given), then labels. Their slots may be
-- allotted again.
local labels, taken = prefix .. 'slots:' .. ARGV[2], prefix .. 'taken:' .. ARGV[2]
local function free(label)
  local slot = redis.call('HGET', labels, label)
  if slot then
    redis.call('HDEL', labels, label)
    redis.call('SETBIT', taken, slot, 0)
  end
end
for at = 4, #ARGV do free(ARGV[at]) end
if ARGV[3] ~= '' then
  for _, label in ipairs(redis.call('HKEYS', labels)) do
    if string.sub(label, 1, #ARGV[3]) == ARGV[3] then free(label) end
  end
end
return 1
