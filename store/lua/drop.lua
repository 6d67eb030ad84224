-- ARGV: prefix, then names. Nobody needs what they name.
for at = 2, #ARGV do redis.call('UNLINK', prefix .. ARGV[at]) end
return 1
