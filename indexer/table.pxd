# Types for the compiled form of table.py.
from indexer.holder_sets cimport HolderSets
from indexer.segment cimport Segment, segment_of

cdef class BlockTable:
    cdef list _blocks
    cdef list _mappings
    cdef readonly HolderSets sets
    cdef public Py_ssize_t limit_bytes
    cdef readonly Py_ssize_t slot_bytes
    cdef readonly Py_ssize_t block_count
    cdef readonly Py_ssize_t mapping_count
    cdef readonly Py_ssize_t copy_count
    cdef readonly object evicted_blocks
    cdef readonly object evicted_mappings
    cdef bint count_copies
    cdef unsigned long long[::1] _scopes
    cdef unsigned long long[::1] _held
    cdef unsigned long long[::1] _lost
    cdef readonly list losers
    cdef unsigned char[::1] _knowing
    cdef dict _copies
    cdef dict _shared
    cdef list _free_members
    cdef set _sweeping
    cdef Py_ssize_t _hand
    cdef readonly Py_ssize_t members
    cdef unsigned char _epoch
    cdef Py_ssize_t _stores
    cdef Py_ssize_t _insert(self, Segment segment, unsigned long long name, unsigned int number)
    cdef void _set(self, Segment segment, Py_ssize_t at, unsigned int number)
    cdef Py_ssize_t _mapping_of(self, Segment segment, unsigned long long engine_hash, unsigned int member)
    cdef bint _hold(self, unsigned long long key, unsigned int member, bint new_hash)
    cdef void _let_go(self, unsigned long long key, unsigned int member)
    cdef unsigned long long _warm(self, unsigned long long[::1] hashes, unsigned long long[::1] keys, unsigned int member) noexcept
    cdef void _store_one(self, unsigned long long engine_hash, unsigned long long key, unsigned int member, unsigned int known, unsigned short span)
    cdef bint _remove_one(self, unsigned long long engine_hash, unsigned int member)
    cdef void _add_holder(self, Segment segment, Py_ssize_t at, unsigned int member)
    cdef void _make_room(self, Segment segment)
    cdef void _drop(self, Segment segment, Py_ssize_t at)
    cdef void _tick(self, Py_ssize_t stored)
    cdef int _rank(self, Segment segment, Py_ssize_t at)
    cdef bint _asked_lately(self, unsigned long long key, unsigned int number)

cdef unsigned long long _part(unsigned long long engine_hash, unsigned long long index) noexcept
