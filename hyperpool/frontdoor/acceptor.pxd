cimport cython

from hyperpool.relay.system cimport accept
from hyperpool.relay.transient cimport TransientConnection


cdef class Acceptor(TransientConnection):
    cdef object _handle
    cdef object _listener
    cdef bint _complained
    cdef bint _watched
    cdef int _batch
    cdef long long _wakeup
    cdef public bint local

    @cython.locals(wakeup=cython.longlong)
    cpdef readable(self, long mask)
    @cython.locals(arrival=tuple)
    cdef bint _accept(self, int most) except -1
