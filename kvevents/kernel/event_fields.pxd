# Types for the compiled form of event_fields.py.
from kvevents.kernel.reader cimport Reader

cdef object _read_field(Reader reader, int slot)
cdef object _is_list_with_items(Reader reader)
cpdef object read_hashes(Reader reader)
cpdef object read_tokens(Reader reader)
cdef unsigned long long _token(Reader reader, unsigned char lead) except? 0
cdef unsigned long long _hash(Reader reader, unsigned char lead) except? 0
