# The C face of holder_sets.py, for the other compiled modules.
cdef class HolderSets:
    cdef readonly list members
    cdef dict _numbers
    cdef dict _steps
    cdef list _free
    cdef readonly set dead
    cdef unsigned int[::1] _references
    cdef readonly Py_ssize_t live
    cdef readonly Py_ssize_t bytes
    cdef unsigned long long[::1] _recent_steps
    cdef unsigned int[::1] _recent_targets
    cpdef unsigned int with_member(self, unsigned int number, unsigned int member)
    cpdef unsigned int without_member(self, unsigned int number, unsigned int member)
    cpdef bint holds(self, unsigned int number, unsigned int member)
    cdef void moved(self, unsigned int before, unsigned int after) noexcept
    cdef unsigned int intern(self, set members)
