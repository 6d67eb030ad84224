-- Returns 1 if the journal has an entry with the id `position`, or may have dropped it for its length;
-- 0 if the journal is another one by now. Fails if it can take no more entries.
local position = unpack(ARGV, 2)
local journal = prefix .. 'journal'
newest_entry()
if #call('XRANGE', journal, position, position, 'COUNT', 1) == 1 then return 1 end
if redis.call('EXISTS', journal) == 0 then return 0 end
local info, fields = redis.call('XINFO', 'STREAM', journal), {}
for index = 1, #info, 2 do fields[info[index]] = info[index + 1] end
-- One that has never dropped an entry has all that it ever had. Older servers do not tell.
return fields['entries-added'] == fields['length'] and 0 or 1
