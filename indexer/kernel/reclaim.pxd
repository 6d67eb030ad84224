# The C face of reclaim.py, for the other compiled modules.
cimport cython
from indexer.kernel.holder_sets cimport HolderSets
from indexer.kernel.holders cimport Holders
from indexer.kernel.segment cimport Segment, segment_of

@cython.final
cdef class EvictionRanks:
    cdef HolderSets _sets
    cdef Holders _holders
    cdef list _blocks
    cdef Py_ssize_t _stores
    cdef dict _held
    cdef dict _pods
    cdef set _beyond_share
    cdef public double pod_share
    cdef public unsigned char epoch
    cdef bint advance(self, Py_ssize_t stored, Py_ssize_t mappings) noexcept
    cdef int rank(self, Segment segment, Py_ssize_t offset)
    cpdef int lowest_to_evict(self, Segment segment)
    cdef bint _is_held(self, unsigned int number)
    cdef bint _is_recently_used(self, unsigned long long key, unsigned int number)

@cython.final
cdef class Sweep:
    cdef list _blocks
    cdef list _mappings
    cdef HolderSets _sets
    cdef Holders _holders
    cdef set _leaving
    cdef Py_ssize_t _next
