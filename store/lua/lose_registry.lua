-- Ends the registry, because bits of it are lost: all owners write their workers again, with bits of
-- another one.
-- registry: does nothing if it is another one by now.
local registry = unpack(ARGV, 2)
if read_registry() == registry then redis.call('DEL', prefix .. 'registry') end
return 1
