-- ARGV: prefix, replica. It is live no more.
return redis.call('HDEL', prefix .. 'replicas', ARGV[2])
