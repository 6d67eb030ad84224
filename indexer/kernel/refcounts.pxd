# The C face of refcounts.py, for the other compiled modules.
cimport cython

@cython.final
cdef class Refcounts:
    cdef readonly Py_ssize_t count
    cdef dict _by_holder
    cdef void incref(self, unsigned int holder, unsigned long long name)
    cdef bint decref(self, unsigned int holder, unsigned long long name)
    cdef Py_ssize_t extra_references(self, unsigned int holder, unsigned long long name)
    cdef void forget(self, unsigned int holder)
