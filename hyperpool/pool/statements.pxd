cdef class Statement:
    cdef object __weakref__
    cdef public bytes body
    cdef public bytes name
    cdef public object flavor
    cdef public object effects
    cdef public Py_ssize_t generation
    cdef public Py_ssize_t users


cdef class Change:
    cdef public bytes name
    cdef public Statement before
    cdef public Statement touched
    cdef public bint unsure
    cdef public Py_ssize_t cycle


cdef class StatementStore:
    cdef public Py_ssize_t version
    cdef public Py_ssize_t generation
    cdef public object _reader
    cdef public object _numbers
    cdef public object _statements

    cpdef Statement unnamed(self, bytes body, object flavor=*)


cdef class MemoryBudget:
    cdef public Py_ssize_t limit
    cdef public Py_ssize_t used


cdef class ClientStatements:
    cdef public Py_ssize_t aside
    cdef public Py_ssize_t size
    cdef public dict names
    cdef public dict holders
    cdef public dict _aliases
    cdef public Py_ssize_t _aliased
    cdef public MemoryBudget _budget
    cdef public dict _closed
    cdef public Py_ssize_t _reserved
    cdef public bytes _spelt


cdef class ServerStatements:
    cdef public Py_ssize_t _crowd
    cdef public object _used
    cdef public set certain
    cdef public set passing
    cdef public Py_ssize_t version

    cpdef use(self, Statement statement, double now)
