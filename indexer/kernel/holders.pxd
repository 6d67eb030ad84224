# The C face of holders.py, for the other compiled modules.
cimport cython
from indexer.kernel.segment cimport hash_of

@cython.final
cdef class Holders:
    cdef unsigned long long[::1] scopes
    cdef unsigned long long[::1] held
    cdef unsigned long long[::1] evicted
    cdef unsigned char[::1] announcer
    cdef readonly Py_ssize_t count
    cdef list _free
    cdef bint is_empty(self, Py_ssize_t holder) noexcept

@cython.final
cdef class Refcounts:
    cdef readonly Py_ssize_t count
    cdef dict _by_holder
    cdef void incref(self, unsigned int holder, unsigned long long name)
    cdef bint decref(self, unsigned int holder, unsigned long long name)
    cdef void drop(self, unsigned int holder, unsigned long long name)
    cdef void limit(self, unsigned int holder, unsigned long long name, Py_ssize_t most)
    cdef Py_ssize_t extra_references(self, unsigned int holder, unsigned long long name)
    cdef void forget(self, unsigned int holder)
