from hyperpool.pool.places cimport Places
from hyperpool.relay.parameters cimport ParameterSet


cdef class ClientReady:
    cdef public object sock
    cdef public Places pool
    cdef public ParameterSet tracked
    cdef public object pid
    cdef public bytes secret
    cdef public bytes welcome
    cdef public bytes received
    cdef public str address
    cdef public str user
    cdef public object greet
    cdef public bint counted
    cdef public bint unread
    cdef public bint hung_up
