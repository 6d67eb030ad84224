-- Returns the rows of names of a generation, '' for a name without any.
-- pages: 2 bytes a name. names: 8 bytes each.
local generation, pages, names = unpack(ARGV, 2)
local page_prefix, rows, bytes = prefix .. 'p:' .. generation .. ':', {}, 0
for index = 1, #names / 8 do
  local page = page_prefix .. struct.unpack('<I2', pages, index * 2 - 1)
  rows[index] = redis.call('HGET', page, string.sub(names, index * 8 - 7, index * 8)) or ''
  bytes = bytes + #rows[index]
  if bytes > 536870912 then malformed('page: too long') end
end
return rows
