-- Returns the ids and the entries of the journal after the id `after`, in turn: at most `count`. One that
-- is longer than `longest` bytes, or no entry of ours, is returned as "".
local after, count, longest = unpack(ARGV, 2)
local ids_and_entries, bytes = {}, 0
for _, entry in ipairs(call('XRANGE', prefix .. 'journal', '(' .. after, '+', 'COUNT', count)) do
  local value = entry[2][1] == 'e' and entry[2][2] or ''
  if #value > tonumber(longest) then value = '' end
  bytes = bytes + #value
  if bytes > tonumber(longest) then break end
  ids_and_entries[#ids_and_entries + 1] = entry[1]
  ids_and_entries[#ids_and_entries + 1] = value
end
return ids_and_entries
