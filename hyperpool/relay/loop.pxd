cimport cython

from hyperpool.relay.census cimport Census
from hyperpool.relay.connection cimport Connection
from hyperpool.relay.frontend cimport Frontend
from hyperpool.relay.handover cimport ClientReady
from hyperpool.pool.places cimport Places
from hyperpool.relay.supply cimport Supply


cdef class Relay(Supply):
    cdef public object tracker
    cdef public object translator
    cdef public object budget
    cdef public dict clients
    cdef public Py_ssize_t max_partial
    cdef public Py_ssize_t max_settings
    cdef public Py_ssize_t max_whole
    cdef public Py_ssize_t max_packet_size
    cdef public bint extended_only
    cdef public double cancel_wait_timeout
    cdef public object cancel
    cdef public object slow
    cdef public dict transients
    cdef public Census census
    cdef public object peer_id
    cdef public set _reserved
    cdef public bint _log_connections
    cdef public bint _log_disconnections
    cdef public bint _log_errors

    @cython.locals(drawn=bytes, pid=long, secret=bytes)
    cpdef tuple reserve_key(self, Py_ssize_t length=*)
    cpdef release_key(self, object pid)
    @cython.locals(client=Frontend, pool=Places)
    cpdef adopt_client(self, ClientReady ready)
    cpdef forget_client(self, Frontend client, str reason, bytes farewell)
    cpdef welcome(self, Connection connection)
    cpdef forget(self, Connection connection)
