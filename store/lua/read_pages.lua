-- Returns names and rows in turn, of the pages of a generation from `first` to `last`.
local generation, first, last = unpack(ARGV, 2)
local names_and_rows, bytes = {}, 0
for page = tonumber(first), tonumber(last) do
  local key = prefix .. 'p:' .. generation .. ':' .. page
  if redis.call('HLEN', key) > 1048576 then malformed('page: too many names') end
  local fields = redis.call('HGETALL', key)
  for index = 1, #fields do
    bytes = bytes + #fields[index]
    names_and_rows[#names_and_rows + 1] = fields[index]
  end
  if bytes > 536870912 then malformed('page: too long') end
end
return names_and_rows
