-- ARGV: prefix, worker. Returns what its owner has left for the next one.
return redis.call('HGET', prefix .. 'w:' .. ARGV[2], 'state') or ''
