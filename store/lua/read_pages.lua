-- Returns names and rows in turn, of the pages of a generation from `first` to `last`.
local generation, first, last = unpack(ARGV, 2)
local names_and_rows = {}
for page = tonumber(first), tonumber(last) do
  local fields = redis.call('HGETALL', prefix .. 'p:' .. generation .. ':' .. page)
  for index = 1, #fields do names_and_rows[#names_and_rows + 1] = fields[index] end
end
return names_and_rows
