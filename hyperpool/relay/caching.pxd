cimport cython

from hyperpool.cache.counters cimport CacheStats
from hyperpool.cache.store cimport Entry
from hyperpool.pool.places cimport Places
from hyperpool.relay.client cimport ClientConnection
from hyperpool.wire cimport constants as wire
from hyperpool.wire.scan cimport length_at


@cython.locals(
    kind=int, nul=Py_ssize_t, entry=Entry, now=double, pool=Places, answer=bytes, totals=CacheStats, size=Py_ssize_t
)
cpdef bint hit(
    ClientConnection client, object lane, bytearray buffer, memoryview view, Py_ssize_t end
) except -1
