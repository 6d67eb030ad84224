-- Takes no arguments. Returns the records and the reports of the workers at home here, the id of the
-- newest journal entry, the garbage, the stamp of every worker that was applied here, and (at shard 0)
-- the registry.
local last = redis.call('XREVRANGE', prefix .. 'journal', '+', '-', 'COUNT', 1)
return {redis.call('HGETALL', prefix .. 'workers'), redis.call('HGETALL', prefix .. 'reports'),
  last[1] and last[1][1] or '0-0', redis.call('HGETALL', prefix .. 'garbage'),
  redis.call('HGETALL', prefix .. 'applied'), redis.call('GET', prefix .. 'registry') or ''}
