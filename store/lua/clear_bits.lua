-- Clears `retired_bits` of blocks. See `set_bits` in the prelude.
local blocks, retired_bits, registry = unpack(ARGV, 2)
set_bits(registry, '', '', '', blocks, retired_bits)
return 1
