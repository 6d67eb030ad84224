# The C face of holder_sets.py, for the other compiled modules.
cimport cython

@cython.final
cdef class HolderSets:
    cdef readonly list holders
    cdef dict _numbers
    cdef dict _transitions
    cdef list _free
    cdef readonly set retired
    cdef unsigned int[::1] _references
    cdef readonly Py_ssize_t live
    cdef readonly Py_ssize_t bytes
    cdef readonly Py_ssize_t live_bytes
    cdef readonly unsigned long long passed
    cdef unsigned long long[::1] _recent_transitions
    cdef unsigned int[::1] _recent_targets
    cpdef unsigned int with_holder(self, unsigned int number, unsigned int holder)
    cpdef unsigned int without_holder(self, unsigned int number, unsigned int holder)
    cpdef bint holds(self, unsigned int number, unsigned int holder)
    cdef void move_reference(self, unsigned int before, unsigned int after) noexcept
    cdef unsigned int intern(self, set holders)
    cdef set _members(self, unsigned int number)
    cdef void _remember(self, unsigned long long transition, unsigned int target)
    cdef Py_ssize_t _bytes_of(self, unsigned int number) noexcept
    cdef bint has_many_unused(self) noexcept
    cdef bint wastes_memory(self) noexcept
