# Types for the compiled form of table.py.
from indexer.segment cimport Segment, segment_of
from indexer.slots cimport Slots

cdef class BlockTable(Slots):
    cdef Py_ssize_t _mapping_of(self, Segment segment, unsigned long long engine_hash, unsigned int member)
    cdef bint _hold(self, unsigned long long key, unsigned int member, bint new_hash)
    cdef unsigned long long _warm(self, unsigned long long[::1] hashes, unsigned long long[::1] keys, unsigned int member) noexcept
    cdef void _store_one(self, unsigned long long engine_hash, unsigned long long key, unsigned int member, unsigned int known, unsigned short span, bint new_copies)
    cdef bint _remove_one(self, unsigned long long engine_hash, unsigned int member)
    cdef void _add_holder(self, Segment segment, Py_ssize_t at, unsigned int member, bint new_copies)

cpdef unsigned long long part_name(unsigned long long engine_hash, unsigned long long index) noexcept
