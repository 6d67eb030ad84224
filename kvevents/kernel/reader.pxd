# Types for the compiled form of reader.py.
cdef class Reader:
    cdef bytes _data
    cdef const unsigned char[::1] _bytes
    cdef readonly Py_ssize_t position
    cdef Py_ssize_t _end
    cdef unsigned long long _unsigned(self, Py_ssize_t width) except? 0
    cdef unsigned char _lead(self) except? 0
    cdef Py_ssize_t _length(self, unsigned char lead) except -1
    cdef unsigned long long _integer(self, unsigned char lead) except? 0
    cdef unsigned long long _token(self, unsigned char lead) except? 0
    cdef unsigned long long _hash(self, unsigned char lead) except? 0
    cdef bytes _name(self)
    cdef object _value(self, int slot)
    cpdef object hashes(self)
    cpdef object tokens(self)
    cpdef Py_ssize_t array_length(self) except -1
    cdef bytes _take(self, Py_ssize_t count)
    cdef object _read(self, int depth)
    cdef int _skip(self, int depth) except -1
