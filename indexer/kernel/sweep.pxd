# The C face of sweep.py, for the other compiled modules.
cimport cython
from indexer.kernel.holder_sets cimport HolderSets
from indexer.kernel.holders cimport Holders
from indexer.kernel.segment cimport Segment

@cython.final
cdef class Sweep:
    cdef list _blocks
    cdef list _mappings
    cdef HolderSets _sets
    cdef Holders _holders
    cdef set _leaving
    cdef Py_ssize_t _next
