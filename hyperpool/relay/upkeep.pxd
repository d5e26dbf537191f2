cimport cython

from hyperpool.pool.places cimport Places
from hyperpool.relay.client cimport ClientConnection
from hyperpool.relay.following cimport Following


cdef class Upkeep(Following):
    cpdef settle(self)
    cpdef finish(self)
    @cython.locals(pool=Places, now=double, following=ClientConnection)
    cpdef _offer(self)
