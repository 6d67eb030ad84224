# The C face of lookups.py, for the other compiled modules.
cimport cython
from indexer.kernel.reclaim cimport EvictionRanks
from indexer.kernel.holder_sets cimport HolderSets
from indexer.kernel.holders cimport Holders
from indexer.kernel.segment cimport Segment, hash_of, segment_of

@cython.final
cdef class BlockLookup:
    cdef list _blocks
    cdef HolderSets _sets
    cdef Holders _holders
    cdef EvictionRanks _ranks

@cython.final
cdef class Meanings:
    cdef HolderSets _sets
    cdef bint has_room
    cdef Py_ssize_t freed
    cdef Py_ssize_t find(self, Segment segment, unsigned long long engine_hash, unsigned int holder) noexcept
    cdef Py_ssize_t find_key(self, Segment segment, Py_ssize_t offset, unsigned long long key, unsigned int announcer)
    cdef bint _free_retired(self, Segment segment, Py_ssize_t offset)
