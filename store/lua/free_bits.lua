-- Frees the bits of labels, so that they are allocated again.
-- label_prefix: frees all labels that begin with it; "" for none. labels: msgpack array.
local model, label_prefix, labels = unpack(ARGV, 2)
local bit_of, taken = prefix .. 'bits:' .. model, prefix .. 'taken_bits:' .. model
local function free(label)
  local position = call('HGET', bit_of, label)
  if position then  -- one that is no number has `allocate_bits` begin a new registry
    redis.call('HDEL', bit_of, label)
    redis.pcall('SETBIT', taken, position, 0)
  end
end
for _, label in ipairs(cmsgpack.unpack(labels)) do free(label) end
if label_prefix ~= '' then
  for _, label in ipairs(redis.call('HKEYS', bit_of)) do
    if string.sub(label, 1, #label_prefix) == label_prefix then free(label) end
  end
end
return 1
