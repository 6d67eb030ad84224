-- Returns 1 if the journal has an entry with the id `position`, else 0. Fails if it can take no more.
local position = unpack(ARGV, 2)
newest_entry()
return #call('XRANGE', prefix .. 'journal', position, position, 'COUNT', 1)
