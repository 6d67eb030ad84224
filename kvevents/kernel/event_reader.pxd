# Types for the compiled form of event_reader.py.
from kvevents.kernel.event_fields cimport read_field
from kvevents.kernel.event_tails cimport EventTail, known_tail, remember_tail
from kvevents.kernel.reader cimport Reader

cpdef tuple read_event(Reader reader)
cdef tuple _read_map(Reader reader, Py_ssize_t count)
cdef tuple _read_array(Reader reader, Py_ssize_t count)
