# The C face of copies.py, for the other compiled modules.
cdef class Copies:
    cdef readonly Py_ssize_t count
    cdef dict _of
    cdef void up(self, unsigned int member, unsigned long long name)
    cdef bint down(self, unsigned int member, unsigned long long name)
    cdef Py_ssize_t beyond_first(self, unsigned int member, unsigned long long name)
    cdef void forget(self, unsigned int member)
