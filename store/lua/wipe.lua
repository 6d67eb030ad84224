-- ARGV: prefix, blocks, retired slots. The bits of these slots are cleared.
write_bits(ARGV[2], '', '', ARGV[3])
return 1
