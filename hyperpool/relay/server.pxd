cimport cython

from hyperpool.pool.places cimport Places
from hyperpool.relay.events cimport EventLoop
from hyperpool.relay.failures cimport Failures
from hyperpool.relay.frontend cimport Frontend
from hyperpool.relay.ledger cimport Ledger
from hyperpool.relay.system cimport receive
from hyperpool.stats cimport PoolStats
from hyperpool.wire cimport constants as wire
from hyperpool.wire.scan cimport hop, length_at

cdef long _IN
cdef bytes EXTENDED
cdef bytes NOTHING
cdef bytes SIMPLE
cdef bytes WATCHED

cdef bytes _passing(int head, bytes simple)


cdef class ServerConnection(Failures):
    cpdef _link(self, Frontend client, bytes expected)
    @cython.locals(
        client=Frontend, relay=EventLoop, end=Py_ssize_t, at=Py_ssize_t, expected=bytes, ledger=Ledger,
        elapsed=double, pool=Places, buffer=bytearray, status=int
    )
    cpdef readable(self, long mask)
    @cython.locals(relay=EventLoop, pool=Places, stats=PoolStats, now=double, elapsed=double)
    cpdef bint _answered_in_block(self, Frontend client, int status, Py_ssize_t end) except -1
    @cython.locals(
        relay=EventLoop, buffer=bytearray, ledger=Ledger, at=Py_ssize_t, start=Py_ssize_t, stop=Py_ssize_t,
        length=Py_ssize_t, kind=int, head=int, pieces=list, simple=bytes
    )
    cpdef _scan(self, Py_ssize_t end)
