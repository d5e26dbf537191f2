cimport cython

from hyperpool.pool.places cimport Places
from hyperpool.pool.statements cimport ClientStatements, ServerStatements, Statement, StatementStore
from hyperpool.relay.frontend cimport Frontend
from hyperpool.relay.ledger cimport Ledger
from hyperpool.relay.upkeep cimport Upkeep
from hyperpool.sql.glance cimport Glance
from hyperpool.wire cimport constants as wire
from hyperpool.wire.scan cimport byte_at, length_at, matches, part, renamed, text_at

cdef tuple _QUERY
cdef bytes _WITH_DESCRIBE
cdef bytes _WITHOUT
cdef tuple _DESCRIBED
cdef tuple _EXECUTED
cdef tuple _PARSED_DESCRIBED
cdef tuple _PARSED_EXECUTED


cdef class Shortcut(Upkeep):
    @cython.locals(kind=int, at=Py_ssize_t, pool=Places, glance=Glance)
    cpdef bint take(self, Frontend client, object buffer, Py_ssize_t end) except -1
    @cython.locals(
        requests=tuple, own=ClientStatements, name=bytes, statement=Statement, pool=Places, kept=ServerStatements,
        store=StatementStore, data=bytes, ledger=Ledger
    )
    cpdef bint _take_bind(self, Frontend client, object buffer, Py_ssize_t at, Py_ssize_t end) except -1
    @cython.locals(
        tail=Py_ssize_t, requests=tuple, pool=Places, store=StatementStore, statement=Statement, before=Statement,
        body=bytes, ledger=Ledger
    )
    cpdef bint _take_parse(self, Frontend client, object buffer, Py_ssize_t at, Py_ssize_t end) except -1
    @cython.locals(pool=Places, own=ClientStatements)
    cpdef bint goes_on(self, Frontend client) except -1
    cpdef _link(self, Frontend client, bytes expected)
