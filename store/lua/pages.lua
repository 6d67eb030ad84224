-- ARGV: prefix, generation, first page, last page. Returns names and rows in turn.
local found = {}
for page = tonumber(ARGV[3]), tonumber(ARGV[4]) do
  local fields = redis.call('HGETALL', prefix .. 'p:' .. ARGV[2] .. ':' .. page)
  for at = 1, #fields do found[#found + 1] = fields[at] end
end
return found
