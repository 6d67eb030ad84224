# Types for the compiled form of rows.py.
from indexer.kernel.segment cimport Segment, segment_of
from indexer.kernel.table cimport BlockTable, part_name

cdef class RowTable(BlockTable):
    cdef void _remove_unlisted(self, unsigned long long name, unsigned long long[::1] rows, unsigned int[::1] holders, unsigned int[::1] holder_ids)
    cdef void _remove_row(self, unsigned long long name, unsigned long long key, unsigned int holder)
    cdef void _assign_row(self, unsigned long long name, unsigned long long key, unsigned long long word, unsigned int holder)
    cdef Py_ssize_t _copies_of(self, unsigned int holder, unsigned long long name)
    cdef Py_ssize_t _find_row_mapping(self, Segment segment, unsigned long long name, unsigned long long key)
    cdef bint _any_in_set(self, unsigned int number, unsigned int[::1] holders)

cdef Py_ssize_t _holder_with_id(unsigned int[::1] holders, unsigned int[::1] holder_ids, unsigned long long holder_id) noexcept
cdef bint _lists_row(unsigned long long[::1] rows, unsigned long long key, unsigned long long holder_id) noexcept
