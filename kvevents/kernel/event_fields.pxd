# Types for the compiled form of event_fields.py.
from libc.string cimport memcmp
from kvevents.kernel.reader cimport Reader, items_of

cpdef object read_field(Reader reader, int slot)
cdef object _is_list_with_items(Reader reader)
cpdef object read_hashes(Reader reader)
cdef Py_ssize_t _read_wide_hashes(Reader reader, const unsigned char *data, unsigned long long *out, Py_ssize_t i, Py_ssize_t count) noexcept
cpdef object read_tokens(Reader reader)
cdef bint _is_repeated(Reader reader, const unsigned char *data, Py_ssize_t length) noexcept
cdef object _read_new_tokens(Reader reader)
cdef Py_ssize_t _read_short_tokens(Reader reader, const unsigned char *data, unsigned long long *out, Py_ssize_t i, Py_ssize_t count) noexcept
cdef unsigned long long _token(Reader reader, unsigned char lead) except? 0
cdef unsigned long long _hash(Reader reader, unsigned char lead) except? 0
