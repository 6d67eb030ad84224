-- ARGV: prefix. Returns the workers at home here with their standings, and reports; the newest entry
-- of the journal; the garbage; what of every worker was applied here; and (at shard 0) the registry.
local last = redis.call('XREVRANGE', prefix .. 'journal', '+', '-', 'COUNT', 1)
return {redis.call('HGETALL', prefix .. 'workers'), redis.call('HGETALL', prefix .. 'reports'),
  last[1] and last[1][1] or '0-0', redis.call('HGETALL', prefix .. 'garbage'),
  redis.call('HGETALL', prefix .. 'applied'), redis.call('GET', prefix .. 'registry') or ''}
