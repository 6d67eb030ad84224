# Types for the compiled form of batch_reader.py.
from kvevents.kernel.event_reader cimport read_event
from kvevents.kernel.event_tails cimport EventTail
from kvevents.kernel.reader cimport Reader

cdef class BatchReader:
    cdef Reader _reader
    cdef Py_ssize_t _most_events
    cdef Py_ssize_t _most_hashes
    cdef object _make_event
    cdef object _make_stored
    cdef object _arguments_of
    cdef readonly object timestamp
    cdef readonly object rank
    cdef readonly list events
    cdef readonly dict skipped
    cdef readonly Py_ssize_t hashes
    cdef Py_ssize_t _fields
    cdef Py_ssize_t _position
    cdef Py_ssize_t _left
    cdef bint _is_map
    cdef bint _has_events
    cdef int _begin(self) except -1
    cdef int _read_field(self) except -1
    cdef object _read_rank(self)
    cdef int _read_event(self) except -1
    cdef int _make(self, Py_ssize_t occupied) except -1
    cdef int _skip_rest(self) except -1
    cdef _count(self, str reason)
