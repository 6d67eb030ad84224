-- ARGV: prefix, blocks, retired slots, their registry. The bits of these slots are cleared.
write_bits(ARGV[4], ARGV[2], '', '', ARGV[3])
return 1
