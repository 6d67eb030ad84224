# The C face of event_tails.py, for the other compiled modules.
from kvevents.kernel.reader cimport Reader

cdef class EventTail:
    cdef list values
    cdef unsigned int present
    cdef Py_ssize_t occupied
    cdef tuple arguments

cpdef EventTail known_tail(Reader reader, Py_ssize_t objects, Py_ssize_t elements)
cdef Py_ssize_t _end_of_tail(Reader reader, const unsigned char *data, Py_ssize_t objects) noexcept
cpdef int remember_tail(Reader reader, Py_ssize_t start, Py_ssize_t occupied, list values, unsigned int present, Py_ssize_t elements) except -1
