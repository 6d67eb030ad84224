# The C face of block_lookup.py, for the other compiled modules.
cimport cython
from indexer.kernel.reclaim cimport EvictionRanks
from indexer.kernel.holder_sets cimport HolderSets
from indexer.kernel.holders cimport Holders
from indexer.kernel.segment cimport Segment, segment_of

@cython.final
cdef class BlockLookup:
    cdef list _blocks
    cdef HolderSets _sets
    cdef Holders _holders
    cdef EvictionRanks _ranks
