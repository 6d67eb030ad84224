-- ARGV: prefix, worker, wish. Told to the worker's owner with its next sign of life.
return redis.call('HSET', prefix .. 'wishes', ARGV[2], ARGV[3])
