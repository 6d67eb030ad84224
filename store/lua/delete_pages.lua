-- Deletes the pages of a generation from `first` to `last`.
-- is_last: "1" if these are its last: the generation is garbage no longer.
local generation, first, last, is_last = unpack(ARGV, 2)
for page = tonumber(first), tonumber(last) do
  redis.call('UNLINK', prefix .. 'p:' .. generation .. ':' .. page)
end
if is_last == '1' then redis.call('HDEL', prefix .. 'garbage', generation) end
return 1
