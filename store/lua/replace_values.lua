-- Replaces values of a hash that cannot be decoded, unless they have been written again meanwhile.
-- name: of the hash. values: msgpack array of field, SHA-1 of its value in hexadecimal digits, and the
-- new value; "" deletes the field.
local name, values = unpack(ARGV, 2)
local key = prefix .. name
for _, value in ipairs(cmsgpack.unpack(values)) do
  local field, digest, new = unpack(value)
  local current = call('HGET', key, field)
  if current and redis.sha1hex(current) == digest then
    if new == '' then redis.call('HDEL', key, field) else redis.call('HSET', key, field, new) end
  end
end
return 1
