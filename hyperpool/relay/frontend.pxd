from hyperpool.pool.places cimport Places
from hyperpool.pool.statements cimport ClientStatements, Statement
from hyperpool.relay.connection cimport Connection
from hyperpool.relay.parameters cimport ParameterSet

cdef class Frontend(Connection)

from hyperpool.relay.backend cimport Backend


cdef class Frontend(Connection):
    cdef public Places pool
    cdef public Backend server
    cdef public bytes parked
    cdef public ParameterSet tracked
    cdef public ParameterSet initial
    cdef public bint proven
    cdef public object greet
    cdef public ClientStatements statements
    cdef public Statement unnamed
    cdef public object pinned
    cdef public bint stalled
    cdef public bint paused
    cdef public object gathered
    cdef public double active
    cdef public bint notified
    cdef public bint caching
    cdef public object fill
    cdef public object flight
    cdef public double patience
    cdef public object pid
    cdef public object secret
    cdef public str address
    cdef public str user

    cpdef close(self, str reason, bytes farewell=*)
