# The C face of slots.py, for the other compiled modules.
from indexer.copies cimport Copies
from indexer.holder_sets cimport HolderSets
from indexer.members cimport Members
from indexer.segment cimport Segment, segment_of

cdef class Slots:
    cdef list _blocks
    cdef list _mappings
    cdef readonly HolderSets sets
    cdef public Py_ssize_t limit_bytes
    cdef readonly Py_ssize_t slot_bytes
    cdef readonly Py_ssize_t block_count
    cdef readonly Py_ssize_t mapping_count
    cdef readonly object evicted_blocks
    cdef readonly object evicted_mappings
    cdef readonly bint count_copies
    cdef readonly list losers
    cdef public bint note_evictions
    cdef readonly list evictions
    cdef Members _members
    cdef Copies _copies
    cdef Copies _shared
    cdef set _sweeping
    cdef Py_ssize_t _hand
    cdef unsigned char _epoch
    cdef Py_ssize_t _stores
    cdef void _count_slot_bytes(self)
    cdef Py_ssize_t _insert(self, Segment segment, unsigned long long name, unsigned int number)
    cdef void _set(self, Segment segment, Py_ssize_t at, unsigned int number)
    cdef void _let_go(self, unsigned long long key, unsigned int member)
    cdef void _make_room(self, Segment segment)
    cdef void _drop(self, Segment segment, Py_ssize_t at)
    cdef void _tick(self, Py_ssize_t stored)
    cdef int _rank(self, Segment segment, Py_ssize_t at)
    cdef bint _asked_lately(self, unsigned long long key, unsigned int number)
