cimport cython

from hyperpool.pool.places cimport Places
from hyperpool.relay cimport hits
from hyperpool.relay.backend cimport Backend
from hyperpool.relay.events cimport EventLoop
from hyperpool.relay.frontend cimport Frontend
from hyperpool.relay.system cimport close_socket, receive
from hyperpool.wire cimport constants as wire
from hyperpool.wire.scan cimport length_at, part

cdef long _IN


cdef class ClientConnection(Frontend):
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
    @cython.locals(server=Backend)
    cpdef close(self, str reason, bytes farewell=*)
    cpdef stop_waiting(self)
