cimport cython

from hyperpool.pool.places cimport Places
from hyperpool.pool.statements cimport ClientStatements, Statement
from hyperpool.relay.connection cimport Connection
from hyperpool.relay.events cimport EventLoop
from hyperpool.relay.parameters cimport ParameterSet
from hyperpool.relay.system cimport receive
from hyperpool.wire cimport constants as wire
from hyperpool.wire.scan cimport length_at, part

cdef class ClientConnection(Connection)

from hyperpool.relay.backend cimport Backend
from hyperpool.relay cimport hits

cdef long _IN


cdef class ClientConnection(Connection):
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

    @cython.locals(relay=EventLoop, pool=Places, end=Py_ssize_t, buffer=bytearray, server=Backend)
    cpdef readable(self, long mask)
    @cython.locals(relay=EventLoop, view=memoryview, end=Py_ssize_t)
    cpdef _read_linked(self, Backend server)
    @cython.locals(at=Py_ssize_t, kind=int, length=Py_ssize_t)
    cpdef consume(self, object buffer, memoryview view, Py_ssize_t end)
    @cython.locals(pool=Places)
    cpdef _wait(self, bytes request)
    @cython.locals(parked=bytes)
    cpdef serve(self, Backend server)
