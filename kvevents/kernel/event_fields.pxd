# Types for the compiled form of event_fields.py.
from libc.string cimport memcmp
from kvevents.kernel.reader cimport Reader

cpdef tuple read_event(Reader reader)
cdef object _read_field(Reader reader, int slot)
cdef object _is_list_with_items(Reader reader)
cpdef object read_hashes(Reader reader)
cdef Py_ssize_t _read_wide_hashes(Reader reader, const unsigned char[::1] data, unsigned long long[::1] out, Py_ssize_t i) noexcept
cpdef object read_tokens(Reader reader)
cdef bint _is_repeated(Reader reader, const unsigned char[::1] data, Py_ssize_t length) noexcept
cdef object _read_new_tokens(Reader reader)
cdef Py_ssize_t _read_short_tokens(Reader reader, const unsigned char[::1] data, unsigned long long[::1] out, Py_ssize_t i) noexcept
cdef unsigned long long _token(Reader reader, unsigned char lead) except? 0
cdef unsigned long long _hash(Reader reader, unsigned char lead) except? 0
