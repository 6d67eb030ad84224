-- ARGV: prefix, generation, first page, last page, last of all. Drops pages of a generation that is
-- garbage; with the last of all the garbage itself.
for page = tonumber(ARGV[3]), tonumber(ARGV[4]) do
  redis.call('UNLINK', prefix .. 'p:' .. ARGV[2] .. ':' .. page)
end
if ARGV[5] == '1' then redis.call('HDEL', prefix .. 'garbage', ARGV[2]) end
return 1
