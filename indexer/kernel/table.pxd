# Types for the compiled form of table.py.
from indexer.kernel.lookups cimport BlockLookup, Meanings
from indexer.kernel.segment cimport Segment, hash_of, items_of, segment_of
from indexer.kernel.table_storage cimport TableStorage

cdef class BlockTable(TableStorage):
    cdef readonly BlockLookup lookup
    cdef Meanings _meanings
    cdef void _prefetch(self, list segments, unsigned long long *names, Py_ssize_t count, unsigned long long scope) noexcept
    cdef Py_ssize_t _store_all(self, unsigned long long *names, unsigned long long *keys, Py_ssize_t count, Py_ssize_t span, unsigned int holder, unsigned int announcer, bint new_copies) except -1
    cdef bint _store_one(self, unsigned long long engine_hash, unsigned long long key, unsigned int holder, unsigned int announcer, unsigned short span, bint new_copies)
    cdef bint _remove_one(self, unsigned long long engine_hash, unsigned int holder)
    cdef int _add_holder(self, Segment segment, Py_ssize_t offset, unsigned int holder, bint new_copies) except -1

cpdef unsigned long long part_name(unsigned long long engine_hash, unsigned long long index) noexcept
