# The C face of members.py, for the other compiled modules.
cdef class Members:
    cdef unsigned long long[::1] scopes
    cdef unsigned long long[::1] held
    cdef unsigned long long[::1] lost
    cdef unsigned char[::1] knowing
    cdef readonly Py_ssize_t count
    cdef list _free
