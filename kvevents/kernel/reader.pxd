# The C face of reader.py, for the other compiled modules.
from cpython.array cimport array
from libc.string cimport memcpy

# The items of an `array('Q')`, without the cost of a memoryview, which is that of a small event.
cdef inline unsigned long long *items_of(array values) noexcept:
    return values.data.as_ulonglongs

cdef class Reader:
    cdef bytes data
    cdef const unsigned char *bytes_
    cdef public Py_ssize_t position
    cdef readonly Py_ssize_t end
    cdef readonly Py_ssize_t occupied
    cdef Py_ssize_t _limit
    cdef Py_ssize_t tokens_start
    cdef Py_ssize_t tokens_end
    cdef object tokens
    cdef object tail
    cdef unsigned long long _unsigned(self, Py_ssize_t width) except? 0
    cdef unsigned char next_byte(self) except? 0
    cdef Py_ssize_t length(self, unsigned char lead) except -1
    cdef unsigned long long integer(self, unsigned char lead) except? 0
    cpdef int occupy(self, Py_ssize_t count) except -1
    cdef str _text(self, bytes raw)
    cpdef bytes name(self)
    cpdef Py_ssize_t array_length(self) except -1
    cdef bytes take(self, Py_ssize_t count)
    cdef object read_nested(self, int depth)
    cdef list _list(self, Py_ssize_t count, int depth)
    cdef int skip_nested(self, int depth) except -1
