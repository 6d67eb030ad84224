# Types for the compiled form of rows.py.
from indexer.segment cimport Segment, segment_of
from indexer.table cimport BlockTable, part_name

cdef class RowTable(BlockTable):
    cdef void _drop_others(self, unsigned long long name, unsigned long long[::1] rows, unsigned int[::1] members, unsigned int[::1] seats)
    cdef void _unseat(self, unsigned long long name, unsigned long long key, unsigned int member)
    cdef void _seat(self, unsigned long long name, unsigned long long key, unsigned long long word, unsigned int member)
    cdef Py_ssize_t _copies_of(self, unsigned int member, unsigned long long name)
    cdef Py_ssize_t _mapping_at(self, Segment segment, unsigned long long name, unsigned long long key)
    cdef bint _any_holds(self, unsigned int number, unsigned int[::1] members)

cdef Py_ssize_t _member_at(unsigned int[::1] members, unsigned int[::1] seats, unsigned long long seat) noexcept
cdef bint _is_told(unsigned long long[::1] rows, unsigned long long key, unsigned long long seat) noexcept
