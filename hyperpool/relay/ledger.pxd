from hyperpool.pool.statements cimport Statement
from hyperpool.wire cimport constants as wire


cdef class Ledger:
    cdef object _entries
    cdef tuple _lone
    cdef Statement _lone_before
    cdef public object changes
    cdef public object unnamed
    cdef public list undone
    cdef public object failed
    cdef public dict _open
    cdef public Py_ssize_t _position
    cdef public Py_ssize_t _last_ready
    cdef public Py_ssize_t owed
    cdef public Py_ssize_t asked
    cdef public Py_ssize_t awaited
    cdef public Py_ssize_t executes
    cdef public Py_ssize_t cycle
    cdef public bint midway
    cdef public bint skipping
    cdef public bint copying
    cdef public Py_ssize_t _ignored
    cdef public bint _answering
    cdef public bint lost
    cdef public int surplus
    cdef public bint unsynced
    cdef public str doubt

    cpdef expect(self, tuple kinds, Statement before=*)
    cpdef fulfilled(self)
    cpdef bint rests(self) except -1
    cpdef request(self, int kind, int action=*, object change=*)
    cpdef int ready(self) except -1
    cpdef int response(self, int kind) except -1
