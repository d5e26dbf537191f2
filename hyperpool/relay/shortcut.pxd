cimport cython

from hyperpool.pool.places cimport Places
from hyperpool.relay.client cimport ClientConnection
from hyperpool.relay.ledger cimport Ledger
from hyperpool.relay.upkeep cimport Upkeep
from hyperpool.sql.glance cimport Glance
from hyperpool.wire cimport constants as wire
from hyperpool.wire.scan cimport length_at


cdef class Shortcut(Upkeep):
    @cython.locals(kind=int, at=Py_ssize_t, pool=Places, glance=Glance)
    cpdef bint take(self, ClientConnection client, object buffer, memoryview view, Py_ssize_t end) except -1
    @cython.locals(nul=Py_ssize_t, ledger=Ledger)
    cpdef bint _take_bind(
        self, ClientConnection client, object buffer, memoryview view, Py_ssize_t at, Py_ssize_t end
    ) except -1
    @cython.locals(ledger=Ledger)
    cpdef bint _take_parse(
        self, ClientConnection client, object buffer, memoryview view, Py_ssize_t at, Py_ssize_t end
    ) except -1
    cpdef _link(self, ClientConnection client, bytes expected)
